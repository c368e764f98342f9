// Handwritten digits, read row by row: eight rows of eight pixels from 0 to 1.

#ifndef DIGITS_H
#define DIGITS_H

// Begin an image. Returns 0 where the memory set aside is too small for the cell.
int digits_start(void);

// Read the next row.
void digits_row(const float *pixels);

// The digit that the rows so far look like.
int digits_answer(void);

#endif
