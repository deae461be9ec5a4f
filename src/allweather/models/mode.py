"""Training or evaluation mode of a network whose parts may be programs of torch.export, which have theirs inside."""

from torch import fx, nn


def set_mode(module: nn.Module, training: bool) -> None:
    """What `module.train(training)` does, but that programs of torch.export stay in the mode that they are written in.

    PyTorch gives each of them a `train` of its own, which raises. A `train` of any other module is called.
    """
    own = "train" in vars(module)
    if not own and type(module).train is nn.Module.train:
        module.training = training
        for part in module.children():
            set_mode(part, training)
        return
    try:
        module.train(training)
    except NotImplementedError:
        if not (own and isinstance(module, fx.GraphModule)):
            raise
