/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The list mode of the stand-alone program: the exports of a server, in the
 * layout of qemu-nbd -L.
 */
#include <inttypes.h>
#include <stdio.h>

#include "arguments-private.h"
#include "block/nbd-list.h"

static void
print_flags(uint16_t flags)
{
    static const struct {
        uint16_t flag;
        const char *word;
    } words[] = {
        {BF_NBD_EXPORT_READ_ONLY, "readonly"},
        {BF_NBD_EXPORT_FLUSH, "flush"},
        {BF_NBD_EXPORT_FUA, "fua"},
        {BF_NBD_EXPORT_ROTATIONAL, "rotational"},
        {BF_NBD_EXPORT_TRIM, "trim"},
        {BF_NBD_EXPORT_WRITE_ZEROES, "zeroes"},
        {BF_NBD_EXPORT_DF, "df"},
        {BF_NBD_EXPORT_MULTI_CONN, "multi"},
        {BF_NBD_EXPORT_RESIZE, "resize"},
        {BF_NBD_EXPORT_CACHE, "cache"},
        {BF_NBD_EXPORT_FAST_ZERO, "fast-zero"},
    };

    printf("  flags: 0x%x (", flags);
    for (unsigned i = 0; i < G_N_ELEMENTS(words); i++) {
        if ((flags & words[i].flag) != 0) {
            printf(" %s", words[i].word);
        }
    }
    printf(" )\n");
}

static void
print_offer(const BfNbdOffer *offer)
{
    printf(" export: '%s'\n", offer->name);
    if (offer->description != NULL) {
        printf("  description: %s\n", offer->description);
    }
    if (!offer->has_info) {
        return;
    }
    printf("  size:  %" PRIu64 "\n", offer->info.size);
    print_flags(offer->info.flags);
    if (offer->info.min_block != 0) {
        printf("  min block: %" PRIu32 "\n", offer->info.min_block);
        printf("  opt block: %" PRIu32 "\n", offer->info.preferred_block);
        printf("  max block: %" PRIu32 "\n", offer->info.max_block);
    }
    printf("  transaction size: 32-bit\n");
    if (offer->contexts != NULL) {
        printf("  available meta contexts: %u\n", offer->contexts->len);
        for (unsigned i = 0; i < offer->contexts->len; i++) {
            printf("   %s\n",
                   (const char *)g_ptr_array_index(offer->contexts, i));
        }
    }
}

void
bf_standalone_print_list(const GPtrArray *offers)
{
    printf("exports available: %u\n", offers->len);
    for (unsigned i = 0; i < offers->len; i++) {
        print_offer(g_ptr_array_index(offers, i));
    }
}
