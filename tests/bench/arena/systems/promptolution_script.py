"""Runs in promptolution's own environment: a job as JSON on stdin, the best prompt as JSON on the last line of stdout.

It does what `promptolution.optimize` does (marker-based predictor, blocks of 30 rows, defaults of each optimizer) and
adds what that function has no room for: the user's prompt as the first of five, the others being variations of it by
promptolution's own `create_prompt_variation`; the arena's lenient scorer as the task's metric; train rows as the source
of few-shot examples; and the budget, checked where the package offers it, at the end of each step. A step that would
go beyond OVER times the budget ends with an error, which the package's loop answers by keeping what it has.
"""

import json
import math
import random
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from promptolution.llms.api_llm import APILLM
from promptolution.optimizers.capo import CAPO
from promptolution.optimizers.evoprompt_ga import EvoPromptGA
from promptolution.predictors.maker_based_predictor import MarkerBasedPredictor
from promptolution.tasks.classification_tasks import ClassificationTask
from promptolution.utils.callbacks import BaseCallback
from promptolution.utils.prompt_creation import create_prompt_variation

sys.path.insert(0, str(Path(__file__).resolve().parents[4]))
from tests.bench.arena.score import Scorer

POPULATION = 5
BLOCK = 30
OVER = 1.3
MOST_STEPS = 1000


class Counted(APILLM):
    """A model that adds its calls to a purse, which the task's model and the proposer share."""

    def __init__(self, purse, **settings):
        super().__init__(**settings)
        self.purse = purse

    def _get_response(self, prompts, system_prompts):
        if self.purse.calls + len(prompts) > OVER * self.purse.budget:
            raise RuntimeError(f"{self.purse.calls} calls made, {len(prompts)} more wanted: beyond the budget")
        self.purse.calls += len(prompts)
        return super()._get_response(prompts, system_prompts)


class Purse:
    def __init__(self, budget):
        self.budget, self.calls = budget, 0


class Stop(BaseCallback):
    def __init__(self, purse):
        self.purse, self.steps = purse, 0

    def on_step_end(self, optimizer):
        self.steps += 1
        return self.purse.calls < self.purse.budget


def connect(purse, url, tokens, temperature):
    return Counted(
        purse,
        api_url=url,
        model_id="arena",
        api_key="no-key",
        max_tokens=tokens,
        gather_timeout_s=7200.0,
        call_timeout_s=3600.0,
        call_kwargs={"temperature": temperature},
    )


def main():
    job = json.load(sys.stdin)
    random.seed(job["seed"])
    np.random.seed(job["seed"])
    score = Scorer(job["answers"], tuple(label.lower() for label in job["labels"]))
    purse = Purse(job["budget"])
    model = connect(purse, job["task_url"], job["reply_tokens"], 0.0)
    proposer = connect(purse, job["proposer_url"], job["proposal_tokens"], 1.0)
    task = ClassificationTask(
        pd.DataFrame(job["dev"], columns=["x", "y"]),
        task_description=job["instruction"],
        n_subsamples=min(BLOCK, len(job["dev"])),
        eval_strategy="sequential_block",
        seed=job["seed"],
        metric=lambda right, reply: float(score.hit(reply[0], right[0])),
    )
    variations = create_prompt_variation([job["instruction"]] * (POPULATION - 1), proposer)
    stop = Stop(purse)
    own = {}
    if job["optimizer"] == "capo":
        own = {"df_few_shots": pd.DataFrame(job["train"], columns=["x", "y"]), "upper_shots": job["shots"]}
    optimizer = {"capo": CAPO, "evopromptga": EvoPromptGA}[job["optimizer"]](
        predictor=MarkerBasedPredictor(model),
        task=task,
        meta_llm=proposer,
        initial_prompts=[job["instruction"], *variations],
        callbacks=[stop],
        **own,
    )
    prompts = optimizer.optimize(n_steps=MOST_STEPS)
    best = prompts[0]
    dev = float(optimizer.scores[0]) if len(optimizer.scores) else math.nan
    facts = {"steps": stop.steps, "few_shots": len(best.few_shots), "dev": None if math.isnan(dev) else dev}
    print(json.dumps({"prompt": best.construct_prompt(), "note": "", "facts": facts}))


if __name__ == "__main__":
    main()
