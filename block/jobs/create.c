/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * blockdev-create: a job that makes an image. All that can be wrong with the
 * image itself is found while it runs and is told by the job.
 */
#include "block/create.h"

#include "block/driver.h"
#include "block/graph.h"
#include "block/job-kind.h"
#include "core/error.h"

typedef struct CreateJob {
    BfJob base;
    const BfDriver *driver;
    BfGraph *graph;                   /* borrowed */
    BfBlockdevCreateOptions *options; /* owned */
} CreateJob;

static bool
create_co_run(BfJob *job, GError **error)
{
    CreateJob *self = (CreateJob *)job;

    return self->driver->co_create(self->graph, job, self->options, error);
}

static void
create_free(BfJob *job)
{
    CreateJob *self = (CreateJob *)job;

    bf_blockdev_create_options_free(self->options);
}

static const BfJobOps create_ops = {
    .type = BF_JOB_TYPE_CREATE,
    .co_run = create_co_run,
    .free = create_free,
};

bool
bf_create_start(BfJobTable *table, BfGraph *graph, const char *job_id,
                const BfBlockdevCreateOptions *options, GError **error)
{
    const BfDriver *driver = bf_driver_find(options->driver);
    const BfJobSettings settings = {.id = job_id, .manual_dismiss = true};
    CreateJob *self = NULL;

    bf_assert_main();
    if (driver == NULL || driver->co_create == NULL) {
        bf_set_error(error, "Driver does not support blockdev-create");
        return false;
    }
    self = g_new0(CreateJob, 1);
    if (!bf_job_init(&self->base, &create_ops, table, &settings, NULL, error)) {
        g_free(self);
        return false;
    }
    self->driver = driver;
    self->graph = graph;
    self->options = bf_blockdev_create_options_copy(options);
    self->base.loop = bf_graph_pick_loop(graph);
    bf_job_start(&self->base);
    return true;
}
