"""Statistics that hold, by name; each method says its source and its limits where it stands.

`intervals`: how sure a number is. `racing`: who may be dropped early. `selection`: what the winner is worth.

Where one looks many times, and what keeps that honest:

- The sealed test: exactly one candidate meets it, once, so its p-value and interval need no correction.
- Racing looks after every block, at every candidate: bets, which stay valid at every look (`racing`).
- Choosing the best of many on dev: its dev score is too high, and is corrected (`selection`); dev is never a proof.
- Halving chooses where to spend and claims nothing, so it has no error rate; what it does to the score is corrected.
- Intervals of single candidates, shown while the search runs, are one at a time: among many the best one's is too
  high. They guide the eye and decide nothing.
- Several runs on one sealed test are several tries: each p-value is valid alone, not the best of them.
"""
