"""Which device works, and which one an array is on: memory is the host's for all of them."""

from __future__ import annotations

from gategen.emulator.settings import current as current_settings

DEVICES = 2  # so that what is on the wrong one is noticed
PROCESSORS = 132
# Of a processor: threads, registers, bytes of shared memory, and what of these a block takes beside its own.
# No compiler tells here how many registers a thread takes: as many as most that have the most.
THREADS, REGISTERS, SHARED, RESERVED = 2048, 2**16, 228 * 1024, 1024
OF_A_THREAD = 128


def held_at_once(threads: int, shared: int) -> int:
    """How many blocks a processor holds at once, of so many threads and bytes of shared memory."""
    return min(THREADS // threads, REGISTERS // (OF_A_THREAD * threads), SHARED // (shared + RESERVED))


_current = 0


def current() -> int:
    return _current


class Device:
    """A device by its number, by default the current one; the current one itself within a `with`."""

    def __init__(self, device: int | None = None) -> None:
        self.id = _current if device is None else device
        self._before: list[int] = []

    def use(self) -> None:
        global _current
        if not 0 <= self.id < DEVICES:
            raise RuntimeError(f"there is no device {self.id}, but {DEVICES} from 0 on")
        _current = self.id

    def __enter__(self) -> Device:
        self._before.append(_current)
        self.use()
        return self

    def __exit__(self, *_: object) -> None:
        Device(self._before.pop()).use()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"<CUDA Device {self.id}>"

    @property
    def attributes(self) -> dict[str, int]:
        """Some of what CUDA tells of a device, of a small one where `residency` says so."""
        processors = min(current_settings().residency or PROCESSORS, PROCESSORS)
        return {"MultiProcessorCount": processors, "MaxSharedMemoryPerBlockOptin": 227 * 1024}

    def synchronize(self) -> None:
        """Nothing: everything is done when a call returns."""
