// A GRU, and a linear layer over its state. All memory is here; the weights are constants.

#include "digits.h"

#include "gru_weights.h"
#include "readout.h"

enum { I = GRU_I_L0, H = GRU_H_L0, WORK = 384 };

static gru_real h[H], y[H], work[WORK];
static const gru_states states = {h};

int digits_start(void)
{
    for (int k = 0; k < H; k++) {
        h[k] = 0;
    }
    return gru_step_workspace(1, I, H) <= WORK;
}

void digits_row(const float *pixels)
{
    gru_step(1, I, H, &gru_l0, pixels, NULL, &states, y, work);
}

int digits_answer(void)
{
    int best = 0;
    float most = 0;
    for (int digit = 0; digit < DIGITS; digit++) {
        float sum = readout_c[digit];
        for (int k = 0; k < H; k++) {
            sum += readout_V[digit * H + k] * y[k];
        }
        if (digit == 0 || sum > most) {
            best = digit;
            most = sum;
        }
    }
    return best;
}
