// Read images, 64 numbers from 0 to 16 each, and print a digit for each of them, on a line of its own.

#include "digits.h"

#include <stdio.h>

enum { ROWS = 8, COLUMNS = 8 };

// The next number, -1 at the end.
static int next_number(void)
{
    int c = getchar();
    while (c != EOF && (c < '0' || c > '9')) {
        c = getchar();
    }
    if (c == EOF) {
        return -1;
    }
    int number = 0;
    for (; c >= '0' && c <= '9'; c = getchar()) {
        number = 10 * number + (c - '0');
    }
    return number;
}

int main(void)
{
    for (;;) {
        if (!digits_start()) {
            return 1;
        }
        for (int row = 0; row < ROWS; row++) {
            float pixels[COLUMNS];
            for (int column = 0; column < COLUMNS; column++) {
                const int number = next_number();
                if (number < 0) {
                    return row + column > 0;  // 0 behind the last image, 1 within one
                }
                pixels[column] = (float)number / 16;
            }
            digits_row(pixels);
        }
        putchar('0' + digits_answer());
        putchar('\n');
    }
}
