"""All that a model is made of, to see that it is as it was."""

import copy


def portrait(model):
    """Every object that the modules of a model hold, by name and in order."""
    parts = {}
    for name, module in model.named_modules(remove_duplicate=False):
        held = [(key, id(value)) for key, value in vars(module).items()]
        for key, value in vars(module).items():
            if isinstance(value, dict):
                held += [(key, own, id(part)) for own, part in value.items()]
            elif isinstance(value, list | set):
                held += [(key, id(part)) for part in value]
        parts[name] = (id(module), type(module), held)
    saved = [copy.deepcopy(getattr(model, key, None)) for key in ("pretrained_cfg", "default_cfg", "_model_args")]
    return parts, list(model.state_dict()), list(map(id, model.parameters())), saved
