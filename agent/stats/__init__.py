"""Statistics; each method names its source and its limits.

`intervals`: how sure a number is. `racing`: which candidates are dropped early. `selection`: what the winner is worth.
`power`: what test rows can show. `agreement`: judges against people. `changes`, `drift` and `anytime`: prompts in
production.

Where data are looked at many times, and what keeps that honest:

- The sealed test: one candidate is scored on it, once, so its p-value and interval need no correction.
- Racing looks after every block, at every candidate: bets, which stay valid at every look (`racing`).
- Choosing the best of many on dev: its dev score is too high, and is corrected (`selection`); dev is never a proof.
- Halving chooses where to spend and claims nothing, so it has no error rate; what it does to the score is corrected.
- Intervals of single candidates, shown while the search runs, hold one at a time: the best one's is too high.
- Several runs on one sealed test are several tries: each p-value is valid alone, not the best of them.
"""
