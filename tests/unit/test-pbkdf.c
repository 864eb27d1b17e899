/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * PBKDF2 against RFC 6070 (SHA-1), RFC 3962 (SHA-1, salt of bytes), RFC 7914
 * (SHA-256), and its calibration against machines of known speed.
 */
#include "crypto/pbkdf.h"

#include <string.h>

#include "core/error.h"
#include "hex.h"

static const struct {
    BfHashAlg hash;
    const char *password; /* hexadecimal */
    const char *salt;     /* hexadecimal */
    unsigned iterations;
    const char *key;
} vectors[] = {
    {BF_HASH_ALG_SHA1, "70617373776f7264", "73616c74", 1,
     "0c60c80f961f0e71f3a9b524af6012062fe037a6"},
    {BF_HASH_ALG_SHA1, "70617373776f7264", "73616c74", 2,
     "ea6c014dc72d6f8ccd1ed92ace1d41f0d8de8957"},
    {BF_HASH_ALG_SHA1, "70617373776f7264", "73616c74", 4096,
     "4b007901b765489abead49d926f721d065a429c1"},
    {BF_HASH_ALG_SHA1, "70617373776f726450415353574f524470617373776f7264",
     "73616c7453414c5473616c7453414c5473616c7453414c5473616c7453414c5473616c74",
     4096, "3d2eec4fe41c849b80c8d83662c0e44a8b291a964cf2f07038"},
    {BF_HASH_ALG_SHA1, "7061737300776f7264", "7361006c74", 4096,
     "56fa6aa75548099dcc37d7f03425e0c3"},
    {BF_HASH_ALG_SHA1, "70617373776f7264",
     "415448454e412e4d49542e4544557261656275726e", 1200,
     "5c08eb61fdf71e4e4ec3cf6ba1f5512ba7e52ddbc5e5142f708a31e2e62b1e13"},
    {BF_HASH_ALG_SHA1, "70617373776f7264", "1234567878563412", 5,
     "d1daa78615f287e6a1c8b120d7062a493f98d203e6be49a6adf4fa574b6e64ee"},
    {BF_HASH_ALG_SHA256, "706173737764", "73616c74", 1,
     "55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc"
     "49ca9cccf179b645991664b39d77ef317c71b845b1e30bd509112041d3a19783"},
};

static BfPbkdfParams
params_of(BfHashAlg hash, GBytes *password, GBytes *salt)
{
    return (BfPbkdfParams){
        .hash = hash,
        .password = bf_test_data(password),
        .password_len = g_bytes_get_size(password),
        .salt = bf_test_data(salt),
        .salt_len = g_bytes_get_size(salt),
    };
}

static void
test_published_vectors(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(vectors); i++) {
        g_autoptr(GBytes) password = bf_test_hex(vectors[i].password);
        g_autoptr(GBytes) salt = bf_test_hex(vectors[i].salt);
        g_autoptr(GBytes) wanted = bf_test_hex(vectors[i].key);
        BfPbkdfParams params = params_of(vectors[i].hash, password, salt);
        gsize len = g_bytes_get_size(wanted);
        g_autofree uint8_t *key = g_malloc(len);
        g_autoptr(GError) error = NULL;

        g_assert_true(
            bf_pbkdf2(&params, vectors[i].iterations, key, len, &error));
        g_assert_no_error(error);
        g_assert_cmpmem(key, len, bf_test_data(wanted), len);
    }
}

/* Of Python's hashlib.pbkdf2_hmac, with a key longer than two hashes. */
static void
test_other_hashes(void)
{
    static const struct {
        BfHashAlg hash;
        const char *key;
    } other[] = {
        {BF_HASH_ALG_MD5,
         "f6acd4bda3e4d3d831a5f61da9ca9d5c3877566e979f4928778d81be4f2e9433"
         "a31043bbf3"},
        {BF_HASH_ALG_SHA224,
         "947cf079cfc7f2016dcd7ec418840443edaabb90c496f98cabeec4bfb1a5a4aa"
         "ff68cca92cf05a6d725502f8e0a8873b2660b7887a9bfd1478837b93c2"},
        {BF_HASH_ALG_SHA384,
         "1bfb451b6087e5d24eeffb57d7284448da95b581d35a1887d9a6e756af559b1f"
         "b4798a4529502f87cdf71f435d66d25e344483fb1f24ab37be82ed35c43762d0"
         "1520cd6457ab0240e0b334cfc688f5da7cc7febb0af6bbb4a7d1def8190116be"
         "a389efcb74"},
        {BF_HASH_ALG_SHA512,
         "b6b07cb2cebf4ad84468391a543824fccffe0e0769dbe6bddf10a65673c4b648"
         "e612d44918f9ce9a19a1294cf5140628084ba994c3b21a4ef4741220b811c633"
         "cfc0641fccbcc4164f1bbfcb1f33f595ae9aa4a33ddcce570157775980362c0e"
         "e28aa340c842a3ae84710167aea2f9ba34833cbf66a8922e5f165d886868fd3f"
         "d426f9ba2a"},
        {BF_HASH_ALG_RIPEMD160,
         "9ca4d509610a8b37dcf0f67242c5dce427aba359131da62169c0a7e6280f8455"
         "763db3bbd875de6af910d3622f"},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(other); i++) {
        g_autoptr(GBytes) wanted = bf_test_hex(other[i].key);
        BfPbkdfParams params = {other[i].hash, "password", 8, "salt", 4};
        gsize len = g_bytes_get_size(wanted);
        g_autofree uint8_t *key = g_malloc(len);
        g_autoptr(GError) error = NULL;

        if (!bf_pbkdf2_supports(other[i].hash)) {
            g_assert_false(bf_pbkdf2(&params, 3, key, len, &error));
            g_assert_nonnull(
                strstr(error->message, "not available in this build"));
            continue;
        }
        g_assert_true(bf_pbkdf2(&params, 3, key, len, &error));
        g_assert_no_error(error);
        g_assert_cmpmem(key, len, bf_test_data(wanted), len);
    }
}

static void
test_refuses_bad_counts(void)
{
    BfPbkdfParams params = {BF_HASH_ALG_SHA1, "p", 1, "s", 1};
    uint8_t key[4];

    for (int i = 0; i < 2; i++) {
        g_autoptr(GError) error = NULL;
        uint64_t count = i == 0 ? 0 : UINT64_C(1) << 32;

        g_assert_false(bf_pbkdf2(&params, count, key, sizeof(key), &error));
        g_assert_nonnull(strstr(error->message, "iterations"));
    }
}

/* A machine that does so many rounds in a second. */
typedef struct Machine {
    uint64_t speed;
    uint64_t spent_ms;
    unsigned calls;
} Machine;

static bool
run_machine(uint64_t iterations, void *opaque, uint64_t *ret_cpu_ms,
            GError **error)
{
    Machine *machine = opaque;

    *ret_cpu_ms = iterations * 1000 / machine->speed;
    machine->spent_ms += *ret_cpu_ms;
    machine->calls++;
    return true;
}

static void
test_calibration_finds_the_speed(void)
{
    static const uint64_t speeds[] = {100,     30000,     65536,
                                      1000000, 123456789, 4000000000};

    for (size_t i = 0; i < G_N_ELEMENTS(speeds); i++) {
        Machine machine = {.speed = speeds[i]};
        uint64_t found = 0;

        g_assert_true(bf_pbkdf2_calibrate(run_machine, &machine, &found, NULL));
        g_assert_cmpuint(found, >=, speeds[i] - speeds[i] / 100);
        g_assert_cmpuint(found, <=, speeds[i] + speeds[i] / 100);
        g_assert_cmpuint(machine.calls, <=, 8);
        /* From the measured speed on, never more than about a second. */
        g_assert_true(speeds[i] < 32768 || machine.spent_ms < 2500);
    }
}

static bool
fail_to_run(uint64_t iterations, void *opaque, uint64_t *ret_cpu_ms,
            GError **error)
{
    bf_set_error(error, "no");
    return false;
}

static void
test_calibration_can_fail(void)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(GError) too_fast = NULL;
    Machine machine = {.speed = UINT64_C(1) << 50};
    uint64_t found = 7;

    g_assert_false(bf_pbkdf2_calibrate(fail_to_run, NULL, &found, &error));
    g_assert_cmpstr(error->message, ==, "no");
    g_assert_false(
        bf_pbkdf2_calibrate(run_machine, &machine, &found, &too_fast));
    g_assert_nonnull(strstr(too_fast->message, "too fast"));
    g_assert_cmpuint(found, ==, 7);
}

static void
test_counts_on_this_machine(void)
{
    BfPbkdfParams params = {BF_HASH_ALG_SHA256, "password", 8, "salt", 4};
    g_autoptr(GError) error = NULL;
    uint64_t found = 0;

    g_assert_true(bf_pbkdf2_count_iterations(&params, 32, &found, &error));
    g_assert_no_error(error);
    g_assert_cmpuint(found, >, 1000);
}

#define ADD(path, name) g_test_add_func("/crypto/pbkdf/" path, test_##name)

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    ADD("pbkdf2/published-vectors", published_vectors);
    ADD("pbkdf2/other-hashes", other_hashes);
    ADD("pbkdf2/refuses-bad-counts", refuses_bad_counts);
    ADD("calibrate/finds-the-speed", calibration_finds_the_speed);
    ADD("calibrate/can-fail", calibration_can_fail);
    ADD("count-iterations/on-this-machine", counts_on_this_machine);
    return g_test_run();
}
