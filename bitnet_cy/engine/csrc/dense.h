/* The dense layout: five trits in a byte, 1.6 bits each.
 *
 * A block is 32 bytes with 160 codes (0, 1, 2 for -1, 0, +1): byte p holds elements p, p + 32,
 * p + 64, p + 96 and p + 128. With N their codes as one number in base 3, the first one leading, the
 * byte is ceil(256 N / 243): the fraction N / 243 in 8 bits. Three times a byte is then its first
 * code times 256 and, below, the byte of the codes that follow. Rows are whole blocks, filled up
 * with code 1. Bytes of the same digits as in TQ1_0, without its scales and its tails.
 */
#ifndef BN_DENSE_H
#define BN_DENSE_H

#include <stddef.h>
#include <stdint.h>

#include "kernels.h"

/* Whether some byte is none that five trits make: of these 13 and of no others, 243 times the byte
 * ends in 243 or more. */
static int bn_dense_is_damaged(const uint8_t *dense, ptrdiff_t n) {
    uint8_t wrong = 0;
    for (ptrdiff_t i = 0; i < n; i++) wrong |= (uint8_t)(13 * dense[i] - 1) < 13;
    return wrong;
}

#endif
