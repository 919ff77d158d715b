/* A plain streaming read, as fast as memory allows: the wall decode runs against. */
#ifndef BN_BANDWIDTH_H
#define BN_BANDWIDTH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static unsigned long long bn_read_bytes(const uint8_t *data, ptrdiff_t n) {
    uint64_t sums[8] = {0};
    for (ptrdiff_t i = 0; i + 64 <= n; i += 64) {
        uint64_t words[8];
        memcpy(words, data + i, sizeof words);
        for (int j = 0; j < 8; j++) sums[j] ^= words[j];
    }
    uint64_t sum = 0;
    for (int j = 0; j < 8; j++) sum ^= sums[j];
    return sum;
}

#endif
