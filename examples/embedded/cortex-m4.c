// How a program begins on a Cortex-M4: with this stack, and at `reset`, which turns the floating point unit on
// and leaves the rest to the C library. The addresses are those of QEMU's board mps2-an386.

#include <stdint.h>

extern void _start(void);

static void reset(void)
{
    *(volatile uint32_t *)0xE000ED88 |= 0xFu << 20;  // CPACR
    __asm volatile("dsb\n\tisb");
    _start();
}

__attribute__((section(".vectors"))) const struct {
    uint32_t stack;
    void (*reset)(void);
} vectors = {0x00400000, reset};
