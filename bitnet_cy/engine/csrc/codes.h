/* Checks on packed two-bit codes. */
#ifndef BN_CODES_H
#define BN_CODES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Whether some code is 3: both of its bits are set. */
static int bn_has_code_3(const uint8_t *data, ptrdiff_t n) {
    uint64_t both = 0;
    ptrdiff_t i = 0;
    for (; i + 8 <= n; i += 8) {
        uint64_t word;
        memcpy(&word, data + i, sizeof word);
        both |= word & word >> 1;
    }
    for (; i < n; i++) both |= data[i] & data[i] >> 1;
    return (both & 0x5555555555555555u) != 0;
}

#endif
