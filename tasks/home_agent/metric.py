"""1 if exactly the right settings changed, to the right values; else 0, and what is wrong."""


def metric(example, prediction):
    right, made = example["labels"]["changes"], prediction["fields"]["changes"]
    if not isinstance(made, dict):
        return {"value": 0.0, "reason": "the answer is no object of settings"}
    wrong = [f"{name} should have become {value}" for name, value in right.items() if name not in made]
    wrong += [f"{name} should not have changed" for name in made if name not in right]
    wrong += [
        f"{name} became {made[name]} instead of {value}"
        for name, value in right.items()
        if name in made and made[name] != value
    ]
    return {"value": float(not wrong), "reason": "; ".join(wrong)}
