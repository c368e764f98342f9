"""The one exception of the emulator."""


class EmulatorError(RuntimeError):
    """A kernel did not compile, or did something that CUDA does not allow."""
