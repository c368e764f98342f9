"""The exceptions of the emulator."""


class EmulatorError(RuntimeError):
    """A kernel did not compile, or did something that CUDA does not allow."""


class HostError(EmulatorError):
    """No kernel's fault: there is no compiler that works, or no room for what it writes."""
