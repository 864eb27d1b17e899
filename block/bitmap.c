/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Dirty bitmaps: a fixed array of words. Writers set bits by atomic OR from
 * any thread before they submit a write, and again when it has ended. Who has
 * drained the nodes reads and clears as he likes. A live consumer clears a bit
 * first and reads the data then: a write that ends before has its data read,
 * one that ends later sets the bit again.
 *
 * A frozen bitmap has two arrays: what readers see, and the hidden successor
 * that writes mark. The latter is always @words, so that neither the writers
 * nor the end of the freeze need to know or to wait.
 */
#include "block/bitmap.h"

#include <inttypes.h>

#include "core/error.h"
#include "core/util.h"

struct BfBitmap {
    char *name;
    uint64_t size;
    unsigned shift; /* granularity is 1 << shift */
    uint64_t n_bits;
    uint64_t *words;  /* what writes mark */
    uint64_t *frozen; /* (nullable) what readers see instead */
    size_t room;      /* how many words there are; those not in use are 0 */
    bool enabled;
    bool filtered;
    unsigned state; /* BfBitmapState */
};

static uint64_t
bits_for(uint64_t size, unsigned shift)
{
    return (size >> shift) + ((size & ((UINT64_C(1) << shift) - 1)) != 0);
}

static size_t
words_for(uint64_t bits)
{
    return bits / 64 + (bits % 64 != 0);
}

static size_t
room_for(uint64_t bits)
{
    return words_for(bits) + 1;
}

static void
set_too_large(uint64_t size, unsigned shift, GError **error)
{
    bf_set_error(error,
                 "a bitmap of %" PRIu64 " bytes of data needs too much memory "
                 "at granularity %" PRIu64 "; use a larger one",
                 size, UINT64_C(1) << shift);
}

static uint64_t *
try_words(uint64_t size, unsigned shift, GError **error)
{
    uint64_t bits = bits_for(size, shift);
    uint64_t *words = NULL;

    if (bits / 8 < BF_BITMAP_BYTES_MAX) {
        words = g_try_new0(uint64_t, room_for(bits));
    }
    if (words == NULL) {
        set_too_large(size, shift, error);
    }
    return words;
}

bool
bf_bitmap_check_granularity(uint32_t granularity, GError **error)
{
    if (granularity < BF_BITMAP_GRANULARITY_MIN ||
        (granularity & (granularity - 1)) != 0) {
        bf_set_error(error, "Granularity must be power of 2 and at least 512");
        return false;
    }
    return true;
}

BfBitmap *
bf_bitmap_new(const char *name, uint64_t size, uint32_t granularity,
              GError **error)
{
    g_autoptr(BfBitmap) bitmap = g_new0(BfBitmap, 1);

    if (!bf_bitmap_check_granularity(granularity, error)) {
        return NULL;
    }
    bitmap->shift = __builtin_ctz(granularity);
    bitmap->size = size;
    bitmap->n_bits = bits_for(size, bitmap->shift);
    bitmap->words = try_words(size, bitmap->shift, error);
    if (bitmap->words == NULL) {
        return NULL;
    }
    bitmap->room = room_for(bitmap->n_bits);
    bitmap->name = g_strdup(name);
    bitmap->enabled = true;
    return g_steal_pointer(&bitmap);
}

BfBitmap *
bf_bitmap_new_like(const BfBitmap *model, GError **error)
{
    return bf_bitmap_new(NULL, model->size, UINT32_C(1) << model->shift, error);
}

void
bf_bitmap_free(BfBitmap *bitmap)
{
    if (bitmap != NULL) {
        g_free(bitmap->name);
        g_free(bitmap->words);
        g_free(bitmap->frozen);
        g_free(bitmap);
    }
}

const char *
bf_bitmap_name(const BfBitmap *bitmap)
{
    return bitmap->name;
}

uint32_t
bf_bitmap_granularity(const BfBitmap *bitmap)
{
    return UINT32_C(1) << bitmap->shift;
}

uint64_t
bf_bitmap_size(const BfBitmap *bitmap)
{
    return bitmap->size;
}

bool
bf_bitmap_is_enabled(const BfBitmap *bitmap)
{
    return bitmap->enabled;
}

void
bf_bitmap_set_enabled(BfBitmap *bitmap, bool enabled)
{
    bitmap->enabled = enabled;
}

unsigned
bf_bitmap_state(const BfBitmap *bitmap)
{
    return bitmap->state;
}

void
bf_bitmap_set_state(BfBitmap *bitmap, BfBitmapState state, bool on)
{
    if (on) {
        bitmap->state |= state;
    } else {
        bitmap->state &= ~(unsigned)state;
    }
}

bool
bf_bitmap_check(const BfBitmap *bitmap, unsigned states, GError **error)
{
    const char *format = NULL;

    states &= bitmap->state;
    if ((states & BF_BITMAP_BUSY) != 0) {
        format = "Bitmap '%s' is currently in use by another operation and "
                 "cannot be used";
    } else if ((states & BF_BITMAP_READ_ONLY) != 0) {
        format = "Bitmap '%s' is readonly and cannot be modified";
    } else if ((states & BF_BITMAP_INCONSISTENT) != 0) {
        format = "Bitmap '%s' is inconsistent and cannot be used";
    } else {
        return true;
    }
    g_set_error(error, BF_ERROR, BF_ERROR_GENERIC, format, bitmap->name);
    return false;
}

size_t
bf_bitmap_bytes(const BfBitmap *bitmap)
{
    return words_for(bitmap->n_bits) * sizeof(uint64_t);
}

/* As readers see it. */
static inline uint64_t
get_word(const BfBitmap *bitmap, uint64_t index)
{
    const uint64_t *words =
        G_UNLIKELY(bitmap->frozen != NULL) ? bitmap->frozen : bitmap->words;

    return __atomic_load_n(&words[index], __ATOMIC_RELAXED);
}

/* The bits of word @index that lie in [@first, @last]. */
static uint64_t
word_mask(uint64_t index, uint64_t first, uint64_t last)
{
    uint64_t mask = UINT64_MAX;

    if (index == first / 64) {
        mask &= UINT64_MAX << (first % 64);
    }
    if (index == last / 64) {
        mask &= UINT64_MAX >> (63 - last % 64);
    }
    return mask;
}

static void
set_bits(BfBitmap *bitmap, uint64_t first, uint64_t last)
{
    for (uint64_t i = first / 64; i <= last / 64; i++) {
        uint64_t mask = word_mask(i, first, last);
        uint64_t old = __atomic_load_n(&bitmap->words[i], __ATOMIC_RELAXED);

        /* Mostly set already: spare the other processors the cache line. */
        if ((old & mask) != mask) {
            __atomic_fetch_or(&bitmap->words[i], mask, __ATOMIC_RELAXED);
        }
    }
}

void
bf_bitmap_put_back(BfBitmap *bitmap, uint64_t offset, uint64_t bytes)
{
    if (bytes == 0 || offset >= bitmap->size) {
        return;
    }
    bytes = MIN(bytes, bitmap->size - offset);
    set_bits(bitmap, offset >> bitmap->shift,
             (offset + bytes - 1) >> bitmap->shift);
}

void
bf_bitmap_set(BfBitmap *bitmap, uint64_t offset, uint64_t bytes)
{
    if (bitmap->enabled) {
        bf_bitmap_put_back(bitmap, offset, bytes);
    }
}

void
bf_bitmap_set_filtered(BfBitmap *bitmap)
{
    bitmap->filtered = true;
}

bool
bf_bitmap_is_filtered(const BfBitmap *bitmap)
{
    return bitmap->filtered;
}

void
bf_bitmap_set_after(BfBitmap *bitmap, uint64_t offset, uint64_t bytes)
{
    /* The data must be there before set_bits() looks whether the bit is. */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    bf_bitmap_set(bitmap, offset, bytes);
}

void
bf_bitmap_clear(BfBitmap *bitmap)
{
    g_assert(bitmap->frozen == NULL);
    memset(bitmap->words, 0, words_for(bitmap->n_bits) * sizeof(uint64_t));
}

void
bf_bitmap_clear_range(BfBitmap *bitmap, uint64_t offset, uint64_t bytes)
{
    uint64_t first = offset >> bitmap->shift;
    uint64_t last;

    g_assert(bitmap->frozen == NULL);
    if (bytes == 0 || offset >= bitmap->size) {
        return;
    }
    bytes = MIN(bytes, bitmap->size - offset);
    last = (offset + bytes - 1) >> bitmap->shift;
    for (uint64_t i = first / 64; i <= last / 64; i++) {
        __atomic_fetch_and(&bitmap->words[i], ~word_mask(i, first, last),
                           __ATOMIC_SEQ_CST);
    }
}

bool
bf_bitmap_get(const BfBitmap *bitmap, uint64_t offset)
{
    uint64_t bit = offset >> bitmap->shift;

    g_assert(offset < bitmap->size);
    return (get_word(bitmap, bit / 64) >> (bit % 64)) & 1;
}

uint64_t
bf_bitmap_count(const BfBitmap *bitmap)
{
    uint64_t bits = 0;

    for (size_t i = 0; i < words_for(bitmap->n_bits); i++) {
        /* Writers may be setting bits meanwhile; any moment's value will do. */
        bits += __builtin_popcountll(get_word(bitmap, i));
    }
    return bits << bitmap->shift;
}

/* The first bit in [@bit, @stop) that is @dirty, or @stop; looks no further, as
 * there may be a lot behind it. */
static uint64_t
find_bit(const BfBitmap *bitmap, uint64_t bit, uint64_t stop, bool dirty)
{
    while (bit < stop) {
        uint64_t word = get_word(bitmap, bit / 64);

        word = (dirty ? word : ~word) >> (bit % 64);
        if (word != 0) {
            return MIN(bit + __builtin_ctzll(word), stop);
        }
        bit = (bit / 64 + 1) * 64;
    }
    return stop;
}

bool
bf_bitmap_next_dirty(const BfBitmap *bitmap, uint64_t offset, uint64_t end,
                     uint64_t *ret_offset, uint64_t *ret_bytes)
{
    uint64_t first, last, stop;

    end = MIN(end, bitmap->size);
    if (offset >= end) {
        return false;
    }
    stop = bits_for(end, bitmap->shift);
    first = find_bit(bitmap, offset >> bitmap->shift, stop, true);
    if (first >= stop) {
        return false;
    }
    last = find_bit(bitmap, first, stop, false);
    *ret_offset = MAX(offset, first << bitmap->shift);
    *ret_bytes = (last == stop ? end : last << bitmap->shift) - *ret_offset;
    return true;
}

/*
 * Clears the dirty bits that begin at @first and end before @stop, and returns
 * how many. Bits are only ever added meanwhile, so what was seen is there.
 */
static uint64_t
clear_run(BfBitmap *bitmap, uint64_t first, uint64_t stop)
{
    uint64_t bit = first;

    while (bit < stop) {
        uint64_t clean = ~(get_word(bitmap, bit / 64) >> (bit % 64));
        uint64_t run = clean == 0 ? 64 : (uint64_t)__builtin_ctzll(clean);
        uint64_t end = MIN(MIN(stop, bit + run), (bit / 64 + 1) * 64);

        if (end == bit) {
            break;
        }
        __atomic_fetch_and(&bitmap->words[bit / 64],
                           ~word_mask(bit / 64, bit, end - 1),
                           __ATOMIC_SEQ_CST);
        bit = end;
    }
    return bit - first;
}

bool
bf_bitmap_take(BfBitmap *bitmap, uint64_t offset, uint64_t end, uint64_t max,
               uint64_t *ret_offset, uint64_t *ret_bytes)
{
    uint64_t first, stop, n;

    end = MIN(end, bitmap->size);
    g_assert(max >> bitmap->shift > 0 && bitmap->frozen == NULL);
    if (offset >= end) {
        return false;
    }
    stop = bits_for(end, bitmap->shift);
    first = find_bit(bitmap, offset >> bitmap->shift, stop, true);
    if (first >= stop) {
        return false;
    }
    n = clear_run(bitmap, first, MIN(stop, first + (max >> bitmap->shift)));
    *ret_offset = first << bitmap->shift;
    *ret_bytes = MIN(n << bitmap->shift, bitmap->size - *ret_offset);
    return true;
}

bool
bf_bitmap_merge(BfBitmap *bitmap, const BfBitmap *from, GError **error)
{
    uint64_t offset = 0;
    uint64_t bytes;

    if (bitmap->size != from->size) {
        bf_set_error(error,
                     "Bitmaps are of different sizes (destination size is "
                     "%" PRIu64 ", source size is %" PRIu64
                     ") and can't be merged",
                     bitmap->size, from->size);
        return false;
    }
    while (bf_bitmap_next_dirty(from, offset, from->size, &offset, &bytes)) {
        set_bits(bitmap, offset >> bitmap->shift,
                 (offset + bytes - 1) >> bitmap->shift);
        offset += bytes;
    }
    return true;
}

void
bf_bitmap_swap(BfBitmap *a, BfBitmap *b)
{
    uint64_t *words = a->words;
    size_t room = a->room;

    g_assert(a->size == b->size && a->shift == b->shift);
    g_assert(a->frozen == NULL && b->frozen == NULL);
    a->words = b->words;
    a->room = b->room;
    b->words = words;
    b->room = room;
}

bool
bf_bitmap_freeze(BfBitmap *bitmap, GError **error)
{
    uint64_t *successor = g_try_new0(uint64_t, bitmap->room);

    g_assert(bitmap->frozen == NULL);
    if (successor == NULL) {
        set_too_large(bitmap->size, bitmap->shift, error);
        return false;
    }
    bitmap->frozen = bitmap->words;
    bitmap->words = successor;
    return true;
}

bool
bf_bitmap_is_frozen(const BfBitmap *bitmap)
{
    return bitmap->frozen != NULL;
}

void
bf_bitmap_thaw(BfBitmap *bitmap, bool keep)
{
    uint64_t *frozen = g_steal_pointer(&bitmap->frozen);

    g_assert(frozen != NULL);
    for (size_t i = 0; keep && i < words_for(bitmap->n_bits); i++) {
        if (frozen[i] != 0) {
            __atomic_fetch_or(&bitmap->words[i], frozen[i], __ATOMIC_RELAXED);
        }
    }
    g_free(frozen);
}

char *
bf_bitmap_sha256(const BfBitmap *bitmap)
{
    g_autoptr(GChecksum) sum = g_checksum_new(G_CHECKSUM_SHA256);
    size_t n_words = MAX(words_for(bitmap->n_bits), 1);

    for (size_t i = 0; i < n_words;) {
        uint64_t piece[512];
        size_t n = 0;

        while (n < G_N_ELEMENTS(piece) && i < n_words) {
            piece[n++] = GUINT64_TO_LE(get_word(bitmap, i++));
        }
        g_checksum_update(sum, (const guchar *)piece, n * sizeof(*piece));
    }
    return g_strdup(g_checksum_get_string(sum));
}

bool
bf_bitmap_reserve(BfBitmap *bitmap, uint64_t size, GError **error)
{
    size_t room = room_for(bits_for(size, bitmap->shift));
    uint64_t *words;

    if (room <= bitmap->room) {
        return true;
    }
    g_assert(bitmap->frozen == NULL);
    words = try_words(size, bitmap->shift, error);
    if (words == NULL) {
        return false;
    }
    memcpy(words, bitmap->words, bitmap->room * sizeof(*words));
    g_free(bitmap->words);
    bitmap->words = words;
    bitmap->room = room;
    return true;
}

void
bf_bitmap_resize(BfBitmap *bitmap, uint64_t size)
{
    uint64_t bits = bits_for(size, bitmap->shift);
    size_t used = words_for(bits);

    g_assert(bitmap->frozen == NULL);
    if (room_for(bits) > bitmap->room) {
        bitmap->words = g_renew(uint64_t, bitmap->words, room_for(bits));
        memset(bitmap->words + bitmap->room, 0,
               (room_for(bits) - bitmap->room) * sizeof(*bitmap->words));
        bitmap->room = room_for(bits);
    }
    if (bits < bitmap->n_bits) {
        memset(bitmap->words + used, 0,
               (bitmap->room - used) * sizeof(*bitmap->words));
        if (bits % 64 != 0) {
            bitmap->words[used - 1] &= UINT64_MAX >> (64 - bits % 64);
        }
    }
    bitmap->size = size;
    bitmap->n_bits = bits;
}
