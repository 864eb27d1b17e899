/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Object kind to constructor. A new kind is one row in object_kinds[].
 *
 * Constructors may suspend (files are read on the thread pool), so an id is
 * looked up again before the object is added.
 */
#include "serve/objects.h"

#include "core/error.h"
#include "core/registry.h"
#include "crypto/secret.h"
#include "objects-private.h"

typedef struct BfObject {
    BfObjectOptions *options; /* owned: as given, with later changes */
    GPtrArray *users;         /* owned: names of who needs it; or NULL */
    union {
        BfLoop *loop;           /* iothread: owned */
        BfSecret *secret;       /* secret: a reference */
        BfTlsCreds *creds;      /* tls-creds-x509: a reference */
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
    bool (*loop_in_use)(void *opaque, const BfLoop *loop);
    void *opaque;
    BfAuthzContext authz;
    uint64_t authz_generation; /* counts what may change a verdict */
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
    return true;
}

static bool
iothread_co_create(BfObjects *objects, BfObject *object, GError **error)
{
    object->u.loop =
        bf_loop_new_worker(objects->main_loop, object->options->id, error);
    return object->u.loop != NULL;
}

static void
iothread_destroy(BfObject *object)
{
    bf_loop_free(object->u.loop);
}

static bool
iothread_may_delete(BfObjects *objects, BfObject *object, GError **error)
{
    if (objects->loop_in_use == NULL ||
        !objects->loop_in_use(objects->opaque, object->u.loop)) {
        return true;
    }
    bf_set_error(error, "object '%s' is in use, can not be deleted",
                 object->options->id);
    return false;
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

/*
 * Runs @fn on a thread of its own: each object may read files, and storage
 * that does not answer for one must not hold up the others.
 */
static void
co_run_aside(const BfObject *object, BfFn *fn, void *arg)
{
    BfPoolLane *lane = bf_pool_lane_new(object->options->id, 1);

    bf_co_offload(lane, fn, arg);
    bf_pool_lane_free(lane);
}

/* --- secret --- */

typedef struct SecretJob {
    BfSecretParams params;
    BfSecret *key;     /* the secret named by keyid; borrowed by the job */
    GError *key_error; /* why there is none */
    BfSecret *ret_secret;
    GError *error;
} SecretJob;

static BfSecret *
lookup_key(const char *id, void *opaque, GError **error)
{
    SecretJob *job = opaque;

    if (job->key == NULL) {
        g_propagate_error(error, g_steal_pointer(&job->key_error));
        return NULL;
    }
    return job->key;
}

static void
load_secret(void *arg)
{
    SecretJob *job = arg;

    job->ret_secret = bf_secret_new(&job->params, lookup_key, job, &job->error);
}

static bool
secret_co_create(BfObjects *objects, BfObject *object, GError **error)
{
    const BfSecretProperties *props = object->options->u.secret;
    SecretJob job = {
        .params =
            {
                .data = props->data,
                .file = props->file,
                .format = props->format == BF_QCRYPTO_SECRET_FORMAT_BASE64
                              ? BF_SECRET_FORMAT_BASE64
                              : BF_SECRET_FORMAT_RAW,
                .keyid = props->keyid,
                .iv = props->iv,
            },
    };

    /* The registry belongs to main: find the key before leaving it. */
    if (props->keyid != NULL) {
        job.key = bf_objects_find_secret(objects, props->keyid, &job.key_error);
        if (job.key != NULL) {
            bf_secret_ref(job.key);
        }
    }
    co_run_aside(object, load_secret, &job);
    bf_secret_unref(job.key);
    g_clear_error(&job.key_error);
    if (job.ret_secret == NULL) {
        g_propagate_error(error, job.error);
        return false;
    }
    object->u.secret = job.ret_secret;
    return true;
}

static void
secret_destroy(BfObject *object)
{
    bf_secret_unref(object->u.secret);
}

/* --- tls-creds-x509 --- */

typedef struct CredsJob {
    BfTlsCredsX509Params params;
    BfTlsCreds *ret_creds;
    GError *error;
} CredsJob;

static void
load_creds(void *arg)
{
    CredsJob *job = arg;

    job->ret_creds = bf_tls_creds_new_x509(&job->params, &job->error);
}

static bool
creds_co_create(BfObjects *objects, BfObject *object, GError **error)
{
    const BfTlsCredsX509Properties *props = object->options->u.tls_creds_x509;
    CredsJob job = {
        .params =
            {
                .endpoint =
                    props->endpoint == BF_QCRYPTO_TLS_CREDS_ENDPOINT_SERVER
                        ? BF_TLS_ENDPOINT_SERVER
                        : BF_TLS_ENDPOINT_CLIENT,
                .dir = props->dir,
                .verify_peer = props->verify_peer,
                .priority = props->priority,
                .sanity_check = props->sanity_check,
                .password_id = props->passwordid,
            },
    };

    if (props->passwordid != NULL) {
        BfSecret *password =
            bf_objects_find_secret(objects, props->passwordid, error);

        if (password == NULL) {
            return false;
        }
        job.params.password = bf_secret_ref(password);
    }
    co_run_aside(object, load_creds, &job);
    bf_secret_unref(job.params.password);
    if (job.ret_creds == NULL) {
        g_propagate_error(error, job.error);
        return false;
    }
    object->u.creds = job.ret_creds;
    return true;
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
     iothread_destroy, iothread_may_delete, NULL},
    {BF_OBJECT_TYPE_SECRET, NULL, secret_co_create, secret_destroy, NULL, NULL},
    {BF_OBJECT_TYPE_THROTTLE_GROUP, NULL, throttle_group_co_create,
     throttle_group_destroy, throttle_group_may_delete, throttle_group_change},
    {BF_OBJECT_TYPE_TLS_CREDS_X509, NULL, creds_co_create, creds_destroy, NULL,
     NULL},
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
                      bool (*loop_in_use)(void *opaque, const BfLoop *loop),
                      void *opaque)
{
    objects->loop_in_use = loop_in_use;
    objects->opaque = opaque;
}

static bool
check_new_id(BfObjects *objects, const char *id, GError **error)
{
    if (!bf_id_is_wellformed(id)) {
        bf_set_error(error,
                     "Parameter 'id' expects an identifier: a letter, then "
                     "letters, digits, '-', '.' or '_'");
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
    if (object->options->qom_type != BF_OBJECT_TYPE_TLS_CREDS_X509) {
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

BfSecret *
bf_objects_find_secret(BfObjects *objects, const char *id, GError **error)
{
    const BfObject *object = bf_registry_find(objects->registry, id);

    if (object == NULL) {
        bf_set_error(error, "No secret with id '%s'", id);
        return NULL;
    }
    if (object->options->qom_type != BF_OBJECT_TYPE_SECRET) {
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
