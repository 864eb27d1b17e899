/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Object kind to constructor. A new kind is one row in object_kinds[].
 *
 * Constructors may suspend (files are read on the thread pool), so an id is
 * looked up again before the object is added.
 */
#include "serve/objects.h"

#include "core/co-lock.h"
#include "core/error.h"
#include "core/registry.h"
#include "crypto/secret.h"
#include "objects-private.h"

typedef struct BfObject {
    BfObjectOptions *options; /* owned: as given, with later changes */
    GPtrArray *users;         /* owned: names of who needs it; or NULL */
    BfSecret *password; /* tls-creds-x509: a reference, for reloads; or NULL */
    union {
        BfLoop *loop;           /* iothread: owned */
        BfSecret *secret;       /* secret, secret_keyring: a reference */
        BfTlsCreds *creds;      /* tls-creds-*: a reference */
        BfThrottleGroup *group; /* throttle-group: owned */
        BfAuthzSource *authz;   /* authz-*: owned */
    } u;
} BfObject;

/* What the daemon can do with one kind of object. */
typedef struct BfObjectKind {
    BfObjectType type;
    /* Checks what the schema cannot say, at creation and at qom-set; or NULL */
    bool (*check)(const BfObjectOptions *options, GError **error);
    bool (*co_create)(BfObjects *objects, BfObject *object, GError **error);
    void (*destroy)(BfObject *object);
    bool (*may_delete)(BfObjects *objects, BfObject *object,
                       GError **error); /* or NULL */
    /* Makes qom-set take effect; may complete @options; or NULL */
    bool (*change)(BfObject *object, BfObjectOptions *options, GError **error);
} BfObjectKind;

struct BfObjects {
    BfLoop *main_loop;    /* borrowed */
    BfRegistry *registry; /* of BfObject, owned */
    BfFdsets *fdsets;     /* borrowed; or NULL */
    bool told_unlocked;   /* that memory cannot be locked */
    BfCancel stop;        /* no more waiting for files */
    char *(*loop_user)(void *opaque, const BfLoop *loop);
    void *opaque;
    BfAuthzContext authz;
    uint64_t authz_generation; /* counts what may change a verdict */
    BfFn *tls_loaded;          /* (nullable) called when credentials changed */
    void *tls_loaded_arg;
    BfCoMutex reload_mutex; /* held by whoever reloads credentials */
};

/* --- iothread --- */

static bool
iothread_check(const BfObjectOptions *options, GError **error)
{
    const BfIothreadProperties *props = options->u.iothread;
    const struct {
        const char *name;
        int64_t value;
    } values[] = {
        {"poll-max-ns", props->poll_max_ns},
        {"poll-grow", props->poll_grow},
        {"poll-shrink", props->poll_shrink},
        {"aio-max-batch", props->aio_max_batch},
        {"thread-pool-min", props->thread_pool_min},
        {"thread-pool-max", props->thread_pool_max},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(values); i++) {
        if (values[i].value < 0) {
            bf_set_error(error,
                         "%s of iothread '%s' must not be negative, but is "
                         "%" G_GINT64_FORMAT,
                         values[i].name, options->id, values[i].value);
            return false;
        }
    }
    if (props->thread_pool_max < 1 || props->thread_pool_max > G_MAXINT ||
        props->thread_pool_min > props->thread_pool_max) {
        bf_set_error(error,
                     "iothread '%s': thread-pool-max must be 1..%d and not "
                     "below thread-pool-min, %" G_GINT64_FORMAT
                     ", but is %" G_GINT64_FORMAT,
                     options->id, G_MAXINT, props->thread_pool_min,
                     props->thread_pool_max);
        return false;
    }
    return true;
}

static bool
iothread_change(BfObject *object, BfObjectOptions *options, GError **error)
{
    (void)error;
    bf_loop_set_poll_max_ns(object->u.loop,
                            (uint64_t)options->u.iothread->poll_max_ns);
    return true;
}

static bool
iothread_co_create(BfObjects *objects, BfObject *object, GError **error)
{
    object->u.loop =
        bf_loop_new_worker(objects->main_loop, object->options->id, error);
    return object->u.loop != NULL &&
           iothread_change(object, object->options, error);
}

static void
iothread_destroy(BfObject *object)
{
    bf_loop_free(object->u.loop);
}

static bool
iothread_may_delete(BfObjects *objects, BfObject *object, GError **error)
{
    g_autofree char *user =
        objects->loop_user != NULL
            ? objects->loop_user(objects->opaque, object->u.loop)
            : NULL;

    if (user != NULL) {
        bf_set_error(error, "object '%s' is in use by %s, can not be deleted",
                     object->options->id, user);
    }
    return user == NULL;
}

/* --- throttle-group --- */

static bool
throttle_group_co_create(BfObjects *objects, BfObject *object, GError **error)
{
    BfThrottleGroupProperties *props = object->options->u.throttle_group;
    BfThrottleConfig config;

    bf_throttle_config_init(&config);
    if (!bf_throttle_properties_read(props, &config, error)) {
        return false;
    }
    bf_throttle_properties_write(props, &config);
    object->u.group = bf_throttle_group_new(&config);
    return true;
}

static void
throttle_group_destroy(BfObject *object)
{
    bf_throttle_group_free(object->u.group);
}

static bool
throttle_group_may_delete(BfObjects *objects, BfObject *object, GError **error)
{
    const char *user = bf_throttle_group_user(object->u.group);

    if (user != NULL) {
        bf_set_error(error, "object '%s' is in use, can not be deleted: %s",
                     object->options->id, user);
    }
    return user == NULL;
}

static bool
throttle_group_change(BfObject *object, BfObjectOptions *options,
                      GError **error)
{
    return bf_throttle_properties_change(options->u.throttle_group,
                                         object->u.group, error);
}

void
bf_object_co_run_aside(const char *id, BfFn *fn, void *arg)
{
    BfPoolLane *lane = bf_pool_lane_new(id, 1);

    bf_co_offload(lane, fn, arg);
    bf_pool_lane_free(lane);
}

/* --- secret, secret_keyring --- */

static bool
secret_co_create(BfObjects *objects, BfObject *object, GError **error)
{
    const BfSecretContext context = {objects, objects->fdsets, &objects->stop};

    object->u.secret =
        bf_secret_properties_co_load(object->options, &context, error);
    /* From here on it is in memory of its own only. */
    bf_secret_properties_wipe(object->options);
    if (object->u.secret == NULL) {
        return false;
    }
    if (!bf_secret_is_locked(object->u.secret) && !objects->told_unlocked) {
        objects->told_unlocked = true;
        g_warning("cannot lock the memory of secrets, which may be written to "
                  "swap space; raise the limit (LimitMEMLOCK= of systemd, "
                  "ulimit -l)");
    }
    return true;
}

static bool
secret_change(BfObject *object, BfObjectOptions *options, GError **error)
{
    return bf_secret_properties_change(options, error);
}

static void
secret_destroy(BfObject *object)
{
    bf_secret_unref(object->u.secret);
}

/* --- tls-creds-* --- */

static bool
creds_co_create(BfObjects *objects, BfObject *object, GError **error)
{
    object->u.creds = bf_tls_object_co_load(objects, object->options,
                                            &object->password, error);
    return object->u.creds != NULL;
}

static void
creds_destroy(BfObject *object)
{
    bf_tls_creds_unref(object->u.creds);
}

/* --- authz-* --- */

static void
authz_changed(void *opaque)
{
    BfObjects *objects = opaque;

    objects->authz_generation++;
}

static bool
authz_co_create(BfObjects *objects, BfObject *object, GError **error)
{
    object->u.authz =
        bf_authz_source_co_new(&objects->authz, object->options, error);
    return object->u.authz != NULL;
}

static void
authz_destroy(BfObject *object)
{
    bf_authz_source_free(object->u.authz);
}

static bool
authz_change(BfObject *object, BfObjectOptions *options, GError **error)
{
    return bf_authz_source_change(object->u.authz, object->options, options,
                                  error);
}

/* The files are read by the next tls-creds-reload. */
static bool
creds_change(BfObject *object, BfObjectOptions *options, GError **error)
{
    return bf_tls_creds_check_change(object->options, options, error);
}

static const BfObjectKind object_kinds[] = {
    {BF_OBJECT_TYPE_AUTHZ_LIST, NULL, authz_co_create, authz_destroy, NULL,
     authz_change},
    {BF_OBJECT_TYPE_AUTHZ_LIST_FILE, NULL, authz_co_create, authz_destroy, NULL,
     authz_change},
    {BF_OBJECT_TYPE_AUTHZ_LISTFILE, NULL, authz_co_create, authz_destroy, NULL,
     authz_change},
    {BF_OBJECT_TYPE_AUTHZ_PAM, NULL, authz_co_create, authz_destroy, NULL,
     authz_change},
    {BF_OBJECT_TYPE_AUTHZ_SIMPLE, NULL, authz_co_create, authz_destroy, NULL,
     authz_change},
    {BF_OBJECT_TYPE_IOTHREAD, iothread_check, iothread_co_create,
     iothread_destroy, iothread_may_delete, iothread_change},
    {BF_OBJECT_TYPE_SECRET, NULL, secret_co_create, secret_destroy, NULL,
     secret_change},
    {BF_OBJECT_TYPE_SECRET_KEYRING, NULL, secret_co_create, secret_destroy,
     NULL, secret_change},
    {BF_OBJECT_TYPE_THROTTLE_GROUP, NULL, throttle_group_co_create,
     throttle_group_destroy, throttle_group_may_delete, throttle_group_change},
    {BF_OBJECT_TYPE_TLS_CREDS_ANON, NULL, creds_co_create, creds_destroy, NULL,
     creds_change},
    {BF_OBJECT_TYPE_TLS_CREDS_PSK, NULL, creds_co_create, creds_destroy, NULL,
     creds_change},
    {BF_OBJECT_TYPE_TLS_CREDS_X509, NULL, creds_co_create, creds_destroy, NULL,
     creds_change},
};

static const BfObjectKind *
find_kind(BfObjectType type)
{
    for (size_t i = 0; i < G_N_ELEMENTS(object_kinds); i++) {
        if (object_kinds[i].type == type) {
            return &object_kinds[i];
        }
    }
    return NULL;
}

static void
object_free(BfObject *object, bool created)
{
    if (created) {
        find_kind(object->options->qom_type)->destroy(object);
    }
    bf_object_options_free(object->options);
    g_clear_pointer(&object->users, g_ptr_array_unref);
    bf_secret_unref(object->password);
    g_free(object);
}

BfObjects *
bf_objects_new(BfLoop *main_loop)
{
    BfObjects *objects = g_new0(BfObjects, 1);

    objects->main_loop = main_loop;
    objects->registry = bf_registry_new();
    objects->authz.changed = authz_changed;
    objects->authz.opaque = objects;
    return objects;
}

void
bf_objects_co_free(BfObjects *objects)
{
    g_autoptr(GPtrArray) all = NULL;

    if (objects == NULL) {
        return;
    }
    all = bf_registry_list(objects->registry);
    for (unsigned i = all->len; i-- > 0;) {
        object_free(g_ptr_array_index(all, i), true);
    }
    bf_registry_free(objects->registry);
    bf_wait_group_co_wait(&objects->authz.watchers);
    g_free(objects);
}

void
bf_objects_set_authz_parser(BfObjects *objects, BfAuthzParseFn *parse)
{
    objects->authz.parse = parse;
}

void
bf_objects_set_in_use(BfObjects *objects,
                      char *(*loop_user)(void *opaque, const BfLoop *loop),
                      void *opaque)
{
    objects->loop_user = loop_user;
    objects->opaque = opaque;
}

void
bf_objects_set_tls_loaded(BfObjects *objects, BfFn *fn, void *arg)
{
    objects->tls_loaded = fn;
    objects->tls_loaded_arg = arg;
}

void
bf_objects_set_fdsets(BfObjects *objects, BfFdsets *fdsets)
{
    objects->fdsets = fdsets;
}

void
bf_objects_stop_waiting(BfObjects *objects)
{
    bf_cancel_fire(&objects->stop);
}

static void
tell_tls_loaded(BfObjects *objects)
{
    if (objects->tls_loaded != NULL) {
        objects->tls_loaded(objects->tls_loaded_arg);
    }
}

static bool
check_new_id(BfObjects *objects, const char *id, GError **error)
{
    if (!bf_id_check(id, error)) {
        return false;
    }
    if (bf_registry_find(objects->registry, id) != NULL) {
        bf_set_error(error,
                     "attempt to add duplicate property '%s' to object (type "
                     "'container'): an object with id '%s' exists; choose "
                     "another id or use object-del first",
                     id, id);
        return false;
    }
    return true;
}

bool
bf_objects_co_add(BfObjects *objects, const BfObjectOptions *options,
                  GError **error)
{
    const BfObjectKind *kind = find_kind(options->qom_type);
    BfObject *object = NULL;

    bf_assert_main();
    if (kind == NULL) {
        bf_set_error(error, "invalid object type: %s",
                     bf_object_type_str(options->qom_type));
        return false;
    }
    if (!check_new_id(objects, options->id, error)) {
        return false;
    }
    if (kind->check != NULL && !kind->check(options, error)) {
        return false;
    }
    object = g_new0(BfObject, 1);
    object->options = bf_object_options_copy(options);
    if (!kind->co_create(objects, object, error)) {
        object_free(object, false);
        return false;
    }
    /* Another client may have taken the id while files were read. */
    if (!check_new_id(objects, options->id, error)) {
        object_free(object, true);
        return false;
    }
    bf_registry_add(objects->registry, options->id, object);
    objects->authz_generation++;
    if (bf_object_is_tls_creds(options)) {
        tell_tls_loaded(objects);
    }
    return true;
}

bool
bf_objects_co_del(BfObjects *objects, const char *id, GError **error)
{
    BfObject *object = bf_registry_find(objects->registry, id);
    const BfObjectKind *kind = NULL;

    bf_assert_main();
    if (object == NULL) {
        bf_set_error(error, "object '%s' not found", id);
        return false;
    }
    if (object->users != NULL && object->users->len > 0) {
        bf_set_error(error, "object '%s' is in use by %s, can not be deleted",
                     id, (const char *)g_ptr_array_index(object->users, 0));
        return false;
    }
    kind = find_kind(object->options->qom_type);
    if (kind->may_delete != NULL && !kind->may_delete(objects, object, error)) {
        return false;
    }
    bf_registry_remove(objects->registry, id);
    objects->authz_generation++;
    object_free(object, true);
    return true;
}

GPtrArray *
bf_objects_list(BfObjects *objects)
{
    GPtrArray *all = bf_registry_list(objects->registry);

    for (unsigned i = 0; i < all->len; i++) {
        const BfObject *object = g_ptr_array_index(all, i);

        all->pdata[i] = object->options;
    }
    return all;
}

const BfObjectOptions *
bf_objects_get_options(BfObjects *objects, const char *id)
{
    const BfObject *object = bf_registry_find(objects->registry, id);

    return object != NULL ? object->options : NULL;
}

bool
bf_objects_set_options(BfObjects *objects, BfObjectOptions *options,
                       GError **error)
{
    BfObject *object = bf_registry_find(objects->registry, options->id);
    const BfObjectKind *kind = NULL;

    if (object == NULL || object->options->qom_type != options->qom_type) {
        bf_set_error(error, "object '%s' not found", options->id);
        bf_object_options_free(options);
        return false;
    }
    kind = find_kind(options->qom_type);
    if ((kind->check != NULL && !kind->check(options, error)) ||
        (kind->change != NULL && !kind->change(object, options, error))) {
        bf_object_options_free(options);
        return false;
    }
    bf_object_options_free(object->options);
    object->options = options;
    return true;
}

BfTlsCreds *
bf_objects_find_tls_creds(BfObjects *objects, const char *id, GError **error)
{
    const BfObject *object = bf_registry_find(objects->registry, id);

    if (object == NULL) {
        bf_set_error(error, "No TLS credentials with id '%s'", id);
        return NULL;
    }
    if (!bf_object_is_tls_creds(object->options)) {
        bf_set_error(error, "Object with id '%s' is not TLS credentials", id);
        return NULL;
    }
    return object->u.creds;
}

BfTlsCreds *
bf_objects_take_tls_creds(BfObjects *objects, const char *id, const char *user,
                          GError **error)
{
    BfTlsCreds *creds = bf_objects_find_tls_creds(objects, id, error);
    BfObject *object = bf_registry_find(objects->registry, id);

    if (creds == NULL) {
        return NULL;
    }
    if (object->users == NULL) {
        object->users = g_ptr_array_new_with_free_func(g_free);
    }
    g_ptr_array_add(object->users, g_strdup(user));
    return bf_tls_creds_ref(creds);
}

void
bf_objects_release_tls_creds(BfObjects *objects, const char *id,
                             const char *user)
{
    BfObject *object = bf_registry_find(objects->registry, id);
    guint index = 0;
    bool found = g_ptr_array_find_with_equal_func(object->users, user,
                                                  g_str_equal, &index);

    g_assert(found);
    g_ptr_array_remove_index(object->users, index);
}

/* Appends a phrase to the error, if there was one before. */
static void
add_error(GError **error, const char *id, const GError *more)
{
    g_autoptr(GError) before = g_steal_pointer(error);

    if (before == NULL) {
        bf_set_error(error,
                     "TLS credentials '%s' were not reloaded, what they had "
                     "stays in force: %s",
                     id, more->message);
    } else {
        bf_set_error(error, "%s; nor were '%s': %s", before->message, id,
                     more->message);
    }
}

static bool
co_reload_one(BfObjects *objects, const char *id, GError **error)
{
    static const char user[] = "tls-creds-reload";
    /* Keeps the object from being deleted meanwhile. */
    g_autoptr(BfTlsCreds) creds =
        bf_objects_take_tls_creds(objects, id, user, error);
    g_autoptr(BfTlsCreds) fresh = NULL;
    BfObject *object = bf_registry_find(objects->registry, id);
    g_autoptr(BfObjectOptions) options = NULL;
    g_autoptr(GError) failure = NULL;

    if (creds == NULL) {
        return false;
    }
    options = bf_object_options_copy(object->options);
    fresh =
        bf_tls_object_co_load(objects, options, &object->password, &failure);
    bf_objects_release_tls_creds(objects, id, user);
    if (fresh == NULL) {
        add_error(error, id, failure);
        return false;
    }
    bf_tls_creds_replace(creds, fresh);
    g_message("TLS credentials '%s' reloaded", id);
    tell_tls_loaded(objects);
    return true;
}

/* Ids, since objects may come and go while files are read. */
static GPtrArray *
list_tls_creds(BfObjects *objects)
{
    GPtrArray *ids = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(GPtrArray) all = bf_objects_list(objects);

    for (unsigned i = 0; i < all->len; i++) {
        const BfObjectOptions *options = g_ptr_array_index(all, i);

        if (bf_object_is_tls_creds(options)) {
            g_ptr_array_add(ids, g_strdup(options->id));
        }
    }
    return ids;
}

bool
bf_objects_co_reload_tls_creds(BfObjects *objects, const char *id,
                               GError **error)
{
    g_autoptr(GPtrArray) ids = NULL;
    g_autoptr(GError) failures = NULL;

    bf_assert_main();
    /* What was read last is what is used last. */
    bf_co_mutex_co_lock(&objects->reload_mutex);
    ids = list_tls_creds(objects);
    if (id != NULL) {
        co_reload_one(objects, id, &failures);
    }
    for (unsigned i = 0; id == NULL && i < ids->len; i++) {
        const char *each = g_ptr_array_index(ids, i);

        if (bf_objects_find_tls_creds(objects, each, NULL) != NULL) {
            co_reload_one(objects, each, &failures);
        }
    }
    bf_co_mutex_unlock(&objects->reload_mutex);
    if (failures != NULL) {
        g_propagate_error(error, g_steal_pointer(&failures));
        return false;
    }
    return true;
}

static BfStrList *
list_users(const BfObject *object)
{
    BfStrList *list = bf_type_new(&bf_str_list_type);

    if (object->users != NULL) {
        list->len = object->users->len;
        list->items = g_new0(char *, list->len);
    }
    for (size_t i = 0; i < list->len; i++) {
        list->items[i] = g_strdup(g_ptr_array_index(object->users, i));
    }
    return list;
}

GPtrArray *
bf_objects_query_tls_creds(BfObjects *objects, int64_t now_s)
{
    GPtrArray *infos =
        g_ptr_array_new_with_free_func((GDestroyNotify)bf_tls_creds_info_free);
    g_autoptr(GPtrArray) ids = list_tls_creds(objects);

    for (unsigned i = 0; i < ids->len; i++) {
        const char *id = g_ptr_array_index(ids, i);
        const BfObject *object = bf_registry_find(objects->registry, id);
        BfTlsCredsInfo *info = bf_tls_creds_describe(object->u.creds, now_s);

        g_free(info->id);
        info->id = g_strdup(id);
        bf_str_list_free(info->users);
        info->users = list_users(object);
        g_ptr_array_add(infos, info);
    }
    return infos;
}

BfSecret *
bf_objects_find_secret(BfObjects *objects, const char *id, GError **error)
{
    const BfObject *object = bf_registry_find(objects->registry, id);

    if (object == NULL) {
        bf_set_error(error, "No secret with id '%s'", id);
        return NULL;
    }
    if (object->options->qom_type != BF_OBJECT_TYPE_SECRET &&
        object->options->qom_type != BF_OBJECT_TYPE_SECRET_KEYRING) {
        bf_set_error(error, "Object with id '%s' is not a secret", id);
        return NULL;
    }
    return object->u.secret;
}

BfThrottleGroup *
bf_objects_find_throttle_group(BfObjects *objects, const char *id)
{
    const BfObject *object = bf_registry_find(objects->registry, id);

    return object != NULL &&
                   object->options->qom_type == BF_OBJECT_TYPE_THROTTLE_GROUP
               ? object->u.group
               : NULL;
}

BfLoop *
bf_objects_find_iothread(BfObjects *objects, const char *id)
{
    const BfObject *object = bf_registry_find(objects->registry, id);

    return object != NULL &&
                   object->options->qom_type == BF_OBJECT_TYPE_IOTHREAD
               ? object->u.loop
               : NULL;
}

static bool
is_authz(BfObjectType type)
{
    return find_kind(type)->co_create == authz_co_create;
}

BfAuthz *
bf_objects_find_authz(BfObjects *objects, const char *id, GError **error)
{
    const BfObject *object = bf_registry_find(objects->registry, id);

    if (object == NULL) {
        bf_set_error(
            error, "Cannot find QAuthZ object ID %s; add it by object-add", id);
        return NULL;
    }
    if (!is_authz(object->options->qom_type)) {
        bf_set_error(error,
                     "Object '%s' is not a QAuthZ subclass, but of type '%s'",
                     id, bf_object_type_str(object->options->qom_type));
        return NULL;
    }
    return bf_authz_source_get(object->u.authz);
}

uint64_t
bf_objects_authz_generation(const BfObjects *objects)
{
    return objects->authz_generation;
}
