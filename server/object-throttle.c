/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * throttle-group objects: their properties come in two spellings, a struct of
 * limits and one property for each limit, which both lead to a BfThrottleConfig
 * and are shown with the values in effect.
 */
#include "objects-private.h"

#include "core/error.h"
#include "schema/type-info.h"

/* Room for the name of a limit. */
#define NAME_BYTES 32

/* What can be said about one limit, in both spellings. */
typedef struct LimitName {
    const char *name;
    BfThrottleBucket bucket;
} LimitName;

static const LimitName limit_names[] = {
    {"bps-total", BF_THROTTLE_BUCKET_BPS_TOTAL},
    {"bps-read", BF_THROTTLE_BUCKET_BPS_READ},
    {"bps-write", BF_THROTTLE_BUCKET_BPS_WRITE},
    {"iops-total", BF_THROTTLE_BUCKET_IOPS_TOTAL},
    {"iops-read", BF_THROTTLE_BUCKET_IOPS_READ},
    {"iops-write", BF_THROTTLE_BUCKET_IOPS_WRITE},
};

/* Where a member called NAME, NAME-max and so on of @config is, in the order
 * of limit_names[]; NULL at the end. */
static uint64_t *
config_value(BfThrottleConfig *config, unsigned index,
             char ret_name[NAME_BYTES])
{
    static const char *const suffixes[] = {"", "-max", "-max-length"};
    const unsigned n = G_N_ELEMENTS(limit_names);
    BfThrottleLimit *limit;

    if (index == n * G_N_ELEMENTS(suffixes)) {
        g_strlcpy(ret_name, "iops-size", NAME_BYTES);
        return &config->iops_size;
    }
    if (index > n * G_N_ELEMENTS(suffixes)) {
        return NULL;
    }
    limit = &config->limits[limit_names[index % n].bucket];
    g_snprintf(ret_name, NAME_BYTES, "%s%s", limit_names[index % n].name,
               suffixes[index / n]);
    return index / n == 0   ? &limit->avg
           : index / n == 1 ? &limit->max
                            : &limit->length;
}

/* An optional integer of a generated struct. */
typedef struct Member {
    bool *has;
    int64_t *value;
} Member;

static Member
find_member(const BfTypeInfo *info, void *object, const char *prefix,
            const char *name)
{
    g_autofree char *full = g_strconcat(prefix, name, NULL);
    const BfField *field = bf_type_find_field(info, full);

    g_assert(field != NULL && field->width == sizeof(int64_t));
    return (Member){
        .has = (bool *)((char *)object + field->has_offset),
        .value = (int64_t *)((char *)object + field->offset),
    };
}

static bool
check_member(const char *name, int64_t value, GError **error)
{
    if (g_str_has_suffix(name, "-length") && (value < 0 || value > UINT_MAX)) {
        bf_set_error(error, "%s value must be in the range [0, %u]", name,
                     UINT_MAX);
        return false;
    }
    /* A negative rate is told like one that is too large. */
    if (g_str_equal(name, "iops-size") && value < 0) {
        bf_set_error(error, "Property values cannot be negative");
        return false;
    }
    return true;
}

/* Takes over what @object gives; the rest of @config stays. */
static bool
read_members(const BfTypeInfo *info, void *object, const char *prefix,
             BfThrottleConfig *config, GError **error)
{
    uint64_t *value;
    char name[NAME_BYTES];

    for (unsigned i = 0; (value = config_value(config, i, name)); i++) {
        Member member = find_member(info, object, prefix, name);

        if (*member.has) {
            if (!check_member(name, *member.value, error)) {
                return false;
            }
            *value = (uint64_t)*member.value;
        }
    }
    return true;
}

static void
write_members(const BfTypeInfo *info, void *object, const char *prefix,
              BfThrottleConfig *config)
{
    const uint64_t *value;
    char name[NAME_BYTES];

    for (unsigned i = 0; (value = config_value(config, i, name)); i++) {
        Member member = find_member(info, object, prefix, name);

        *member.has = true;
        *member.value = (int64_t)*value;
    }
}

bool
bf_throttle_properties_read(BfThrottleGroupProperties *props,
                            BfThrottleConfig *config, GError **error)
{
    if (props->limits != NULL &&
        !read_members(&bf_throttle_limits_type, props->limits, "", config,
                      error)) {
        return false;
    }
    return read_members(&bf_throttle_group_properties_type, props, "x-", config,
                        error) &&
           bf_throttle_config_check(config, error);
}

void
bf_throttle_properties_write(BfThrottleGroupProperties *props,
                             const BfThrottleConfig *config)
{
    BfThrottleConfig copy = *config;

    if (props->limits == NULL) {
        props->limits = bf_type_new(&bf_throttle_limits_type);
    }
    write_members(&bf_throttle_limits_type, props->limits, "", &copy);
    write_members(&bf_throttle_group_properties_type, props, "x-", &copy);
}

/* Did somebody set the single property of a limit? */
static bool
is_single_changed(BfThrottleGroupProperties *props,
                  const BfThrottleConfig *config)
{
    BfThrottleConfig copy = *config;
    const uint64_t *value;
    char name[NAME_BYTES];
    bool changed = false;

    for (unsigned i = 0; (value = config_value(&copy, i, name)); i++) {
        Member member =
            find_member(&bf_throttle_group_properties_type, props, "x-", name);

        changed |= !*member.has || *member.value != (int64_t)*value;
    }
    return changed;
}

bool
bf_throttle_properties_change(BfThrottleGroupProperties *props,
                              BfThrottleGroup *group, GError **error)
{
    BfThrottleConfig config = *bf_throttle_group_get_config(group);

    /* They could only be changed one by one, through states that are wrong. */
    if (is_single_changed(props, &config)) {
        bf_set_error(error, "Property cannot be set after initialization; set "
                            "'limits', which takes any number of limits");
        return false;
    }
    if (props->limits != NULL &&
        (!read_members(&bf_throttle_limits_type, props->limits, "", &config,
                       error) ||
         !bf_throttle_config_check(&config, error))) {
        return false;
    }
    bf_throttle_group_set_config(group, &config);
    bf_throttle_properties_write(props, &config);
    return true;
}
