"""Scales of words that surveys, helpdesks and reviews use, in English and German: which labels are steps of one."""

from __future__ import annotations

from collections.abc import Iterable

from agent.shipped import fold

_SCALES = (
    # agreement
    "strongly disagree, fully disagree, completely disagree, totally disagree < disagree, mostly disagree "
    "< somewhat disagree, slightly disagree, rather disagree "
    "< neutral, neither agree nor disagree, neither, undecided, not sure, unsure "
    "< somewhat agree, slightly agree, rather agree < agree, mostly agree "
    "< strongly agree, fully agree, completely agree, totally agree",
    "stimme gar nicht zu, stimme überhaupt nicht zu, trifft gar nicht zu, trifft überhaupt nicht zu "
    "< stimme nicht zu, lehne ab, trifft nicht zu < stimme eher nicht zu, trifft eher nicht zu "
    "< teils teils, teils/teils, teils, neutral, weder noch, unentschieden, weiß nicht "
    "< stimme eher zu, trifft eher zu < stimme zu, trifft zu "
    "< stimme voll zu, stimme voll und ganz zu, stimme völlig zu, trifft voll zu, trifft voll und ganz zu",
    # satisfaction
    "extremely dissatisfied < very dissatisfied, very unsatisfied, very unhappy "
    "< dissatisfied, unsatisfied, unhappy, not satisfied "
    "< somewhat dissatisfied, rather dissatisfied "
    "< neutral, neither satisfied nor dissatisfied, neither < somewhat satisfied, rather satisfied "
    "< satisfied, happy < very satisfied, very happy < extremely satisfied",
    "sehr unzufrieden < unzufrieden < eher unzufrieden < neutral, teils teils, teils/teils, weder noch "
    "< eher zufrieden < zufrieden < sehr zufrieden",
    # frequency
    "never < hardly ever, almost never < rarely, seldom < occasionally < sometimes < often, frequently, regularly "
    "< usually, mostly, very often < almost always, nearly always < always",
    "nie, niemals < fast nie < selten < gelegentlich < manchmal < oft, häufig, regelmäßig < meistens, meist, sehr oft "
    "< fast immer < immer",
    # priority and severity
    "none, no < trivial < lowest, very low < low, minor < medium, moderate, normal, middle "
    "< high, major, severe < very high, highest < urgent < critical, blocker",
    "keine < sehr niedrig, sehr gering < niedrig, gering, leicht < mittel, normal, mäßig < hoch, schwer < sehr hoch "
    "< dringend < kritisch",
    # quality
    "terrible, awful < very poor, very bad < poor, bad < fair, average, mediocre, okay, ok, acceptable < good "
    "< very good < excellent, outstanding",
    "sehr schlecht, ungenügend < schlecht, mangelhaft < ausreichend, mäßig < befriedigend, mittel, durchschnittlich "
    "< gut < sehr gut < ausgezeichnet, hervorragend",
    # likelihood
    "very unlikely, extremely unlikely < unlikely < somewhat unlikely < neutral, neither likely nor unlikely "
    "< somewhat likely < likely < very likely, extremely likely",
    "sehr unwahrscheinlich < unwahrscheinlich < eher unwahrscheinlich < neutral < eher wahrscheinlich "
    "< wahrscheinlich < sehr wahrscheinlich",
)
_PLACES = tuple(
    {fold(word.strip()): place for place, words in enumerate(scale.split("<")) for word in words.split(",")}
    for scale in _SCALES
)


def known_scale(labels: Iterable[str]) -> list[str]:
    """The labels from the low to the high end of a known scale; [] where they are no three or more steps of one.

    >>> known_scale(["High", "low", "Medium"])
    ['low', 'Medium', 'High']
    """
    found = list(labels)
    for places in _PLACES:
        steps = {places.get(fold(label)): label for label in found}
        if None not in steps and len(steps) == len(found) >= 3:
            return [label for _, label in sorted(steps.items(), key=lambda step: step[0] or 0)]
    return []
