#ifndef EDBATCH_ROUNDS_H
#define EDBATCH_ROUNDS_H
#include "cores.h"
#include "graphs.h"
#include "instances.h"
#include "waits.h"
#include <time.h>

/* A round: from what is recorded to values, in one call --------------------------------------------------------------
 *
 * The lists of the recorder become a graph (flush.py), with equal calls as one node; the graph is scheduled and planned by
 * the functions in native/tir, and run. Nothing of a round that is refused (UNUSUAL) remains: Python computes it instead.
 */

enum { AGENDA = 0, FSM = 4, BY_DEPTH = -1, BATCHES = 0, MISSES = 1, FAILED = 2, SCHEDULE_IO = 9 };
enum { ARGUMENT_TASKS, ARGUMENT_TASK, ARGUMENT_BOARD = 3 }; /* of the program */
enum { ALL_TASKS = -1, CLEAR_BOARD = -2 };                  /* as the task: see relay_ext/parallel_region.py */
enum { FILLED = 4, LARGEST = 6, MOST_ROWS = 7, FILL_IO = 8, FACTS = 18, STEP_TYPE = 0, STEP_COUNT = 1, SPARE_PIECES = 64, OF_SCHEDULE = 5, STAGES = 3, MOST_TYPES = 512 };

static int64_t nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static Argument number(int64_t value) { return (Argument){.kind = FFI_INT, .number = value}; }

/* An array as TVM takes it: a vector, or (columns >= 0) a matrix. */
static Argument array(Matrix *place, void *data, int code, int bits, int64_t rows, int64_t columns) {
    *place = (Matrix){.shape = {rows, columns}, .strides = {columns < 0 ? 1 : columns, 1}};
    place->tensor = (DLTensor){.data = data, .device = {DL_CPU, 0}, .ndim = columns < 0 ? 1 : 2,
                               .shape = place->shape, .strides = place->strides};
    place->tensor.dtype.code = code;
    place->tensor.dtype.bits = bits;
    place->tensor.dtype.lanes = 1;
    return (Argument){.kind = FFI_TENSOR, .pointer = &place->tensor};
}
enum { DL_UINT = 1 };
#define INTS(data, rows) array(next++, data, DL_INT, 32, rows, -1)
#define INTS2(data, rows, columns) array(next++, data, DL_INT, 32, rows, columns)
#define SHORTS(data, rows) array(next++, data, DL_INT, 16, rows, -1)
#define LONGS(data, rows) array(next++, data, DL_INT, 64, rows, -1)

/* Call a function of TVM. UNUSUAL: it failed; Python runs into the same error and says what it is. */
static int called(Engine *engine, void *function, Argument *arguments, int32_t count) {
    Argument result = {.kind = FFI_NONE};
    if (engine->call(function, arguments, count, &result) == 0) return DONE;
    void *error = NULL;
    engine->take_error(&error);
    if (error != NULL) engine->let_go(error);
    return UNUSUAL;
}

/* The table of a state machine, of the policy that schedules. */
typedef struct {
    long rule, encoding;
    Py_buffer key, action;
} Rule;

static int make_schedule(Engine *engine, Work *work, Rule *rule, int64_t *io) {
    int32_t nodes = work->nodes, types = engine->types, padded = (types + LANES - 1) / LANES * LANES;
    int32_t uses = ((int32_t *)work->use_ptr.data)[nodes];
    Matrix matrix[16], *next = matrix;
    Argument arguments[16], *add = arguments;
    ROOM(order, int32_t, nodes)
    ROOM(batch_ptr, int32_t, nodes + 1)
    ROOM(batch_type, int16_t, nodes)
    if (rule->rule == BY_DEPTH) {
        ROOM(schedule_work, int32_t, 3 * (size_t)nodes + types)
        *add++ = SHORTS(work->node_type.data, nodes);
        *add++ = INTS(work->use_ptr.data, nodes + 1);
        *add++ = INTS(work->user.data, uses ? uses : 1);
        for (int n = 0; n < 3; n++) *add++ = INTS(schedule_work + n * (size_t)nodes, nodes);
        *add++ = INTS(schedule_work + 3 * (size_t)nodes, types);
        *add++ = INTS(order, nodes);
        *add++ = INTS(batch_ptr, nodes + 1);
        *add++ = SHORTS(batch_type, nodes);
        *add++ = LONGS(io, SCHEDULE_IO);
        return called(engine, engine->depth, arguments, add - arguments);
    }
    /* See NativeKernels._call() in native/kernels.py. */
    int64_t tables = (rule->rule == 2 || rule->rule == FSM) + (rule->rule == 1);
    int64_t room = (types + 1) * (int64_t)padded + 6 * (int64_t)nodes + 6 * types + 6 + tables * nodes * padded;
    if (room > INT32_MAX) return UNUSUAL;
    ROOM(schedule_work, int32_t, room)
    ROOM(learning, int64_t, 3 * types + 2)
    *add++ = number(rule->rule);
    *add++ = number(rule->encoding);
    *add++ = number(types);
    *add++ = SHORTS(work->node_type.data, nodes);
    *add++ = INTS(work->use_ptr.data, nodes + 1);
    *add++ = INTS(work->user.data, uses ? uses : 1);
    *add++ = INTS(work->waits.data, nodes);
    *add++ = LONGS(work->type_count.data, types);
    *add++ = array(next++, rule->key.buf, DL_UINT, 64, rule->key.len / 8, -1);
    *add++ = INTS(rule->action.buf, rule->action.len / 4);
    *add++ = array(next++, learning, DL_INT, 64, 1, 3 * types + 2);
    *add++ = INTS(schedule_work, room);
    *add++ = INTS(order, nodes);
    *add++ = INTS(batch_ptr, nodes + 1);
    *add++ = SHORTS(batch_type, nodes);
    *add++ = LONGS(io, SCHEDULE_IO + types);
    return called(engine, engine->schedule, arguments, add - arguments);
}

/* The operands of all cells, as an array of three dimensions. */
static Argument cell_operands(Engine *engine, Matrix *place, int64_t *shape, int64_t *strides) {
    Argument made = array(place, engine->operands, DL_INT, 32, engine->types, engine->most);
    shape[0] = engine->types;
    shape[1] = engine->most;
    shape[2] = 4;
    strides[0] = 4 * (int64_t)engine->most;
    strides[1] = 4;
    strides[2] = 1;
    place->tensor.ndim = 3;
    place->tensor.shape = shape;
    place->tensor.strides = strides;
    return made;
}

/* The plan `batch`: NativePlanner.fill_by_batch(). */
static int make_plan(Values *self, int32_t edges, int32_t others, int64_t *io) {
    Engine *engine = self->engine;
    Work *work = self->work;
    int32_t nodes = work->nodes, batches = work->batches, types = engine->types;
    Matrix matrix[20], *next = matrix;
    Argument arguments[20], *add = arguments;
    ROOM(base, int32_t, (size_t)batches * engine->stride)
    ROOM(steps, int32_t, (size_t)batches * engine->columns)
    ROOM(index, int32_t, (size_t)edges + nodes + types)
    ROOM(value_row, int32_t, (size_t)nodes * engine->stride)
    ROOM(attribute_row, int32_t, nodes)
    ROOM(fill_work, int32_t, 2 * (size_t)nodes + (6 + engine->most) * (size_t)types)
    ROOM(arena_rows, int32_t, engine->arenas)
    memset(steps, 0, (size_t)batches * engine->columns * sizeof(int32_t));
    memcpy(arena_rows, self->used, engine->arenas * sizeof(int32_t));
    ((int32_t *)work->operand_value.data)[edges] = -1; /* TVM refuses an array without elements */
    *add++ = number(1);
    *add++ = INTS2(engine->output_arena, types, engine->stride);
    *add++ = INTS(arena_rows, engine->arenas);
    *add++ = SHORTS(work->node_type.data, nodes);
    *add++ = INTS(work->operand_ptr.data, nodes + 1);
    *add++ = INTS(work->operand_value.data, edges ? edges : 1);
    *add++ = INTS(work->outside_row.data, others);
    *add++ = INTS(work->order.data, nodes);
    *add++ = INTS(work->batch_ptr.data, batches + 1);
    *add++ = SHORTS(work->batch_type.data, batches);
    *add++ = INTS2(base, batches, engine->stride);
    *add++ = INTS2(engine->cells, types, CELL_COLUMNS);
    int64_t shape[3], strides[3];
    *add++ = cell_operands(engine, next++, shape, strides);
    *add++ = INTS(fill_work, 2 * (int64_t)nodes + (6 + engine->most) * (int64_t)types);
    *add++ = INTS2(steps, batches, engine->columns);
    *add++ = INTS(index, (int64_t)edges + nodes + types);
    *add++ = INTS2(value_row, nodes, engine->stride);
    *add++ = INTS(attribute_row, nodes);
    *add++ = LONGS(io, FILL_IO);
    int outcome = called(engine, engine->fill, arguments, add - arguments);
    if (outcome == DONE && !io[FILLED]) index[0] = 0;
    return outcome;
}

/* Cut large batches into pieces, for so many threads: SplitBatches.steps(). */
static int cut_batches(Engine *engine, Work *work, int64_t threads) {
    const int32_t *steps = work->steps.data;
    int32_t batches = work->batches, pieces = 0;
    work->calls = 0;
    for (int32_t b = 0; b < batches; b++) {
        int32_t type = steps[b * engine->columns + STEP_TYPE];
        int64_t most = engine->most_of_piece[type] * threads, count = steps[b * engine->columns + STEP_COUNT];
        int32_t own = (int32_t)(count <= most ? 1 : (count + most - 1) / most);
        pieces += own;
        work->calls += own * (int32_t)engine->kernels[type];
    }
    ROOM(shares, int32_t, 2)
    shares[0] = 0;
    shares[1] = work->runs = pieces;
    work->in_shares = 1;
    if (pieces == batches) return DONE;
    int64_t told, shape[3], strides[3];
    Matrix matrix[7], *next = matrix;
    Argument arguments[8], *add = arguments;
    ROOM(made, int32_t, (size_t)pieces * engine->columns)
    ROOM(piece_of, int32_t, batches + 1)
    *add++ = number(threads);
    *add++ = INTS2(work->steps.data, batches, engine->columns);
    *add++ = LONGS(engine->most_of_piece, engine->types);
    *add++ = INTS2(engine->cells, engine->types, CELL_COLUMNS);
    *add++ = cell_operands(engine, next++, shape, strides);
    *add++ = INTS2(made, pieces, engine->columns);
    *add++ = INTS(piece_of, batches + 1);
    *add++ = LONGS(&told, 1);
    return called(engine, engine->cut, arguments, add - arguments);
}

/* Divide a minibatch of instances into a share for each thread, where that can be: shares.py. */
static int divide_instances(Engine *engine, Work *work, int32_t instances, int32_t edges, int32_t threads) {
    int32_t nodes = work->nodes, batches = work->batches, room = threads * batches + SPARE_PIECES;
    ROOM(fixed, int64_t, threads)
    ROOM(first_node, int32_t, 2 * ((size_t)threads + 1))
    ROOM(split, int32_t, (size_t)batches * (threads + 1))
    ROOM(shares, int32_t, threads + 1)
    int64_t told, shape[3], strides[3];
    for (;; room = (int32_t)told) {
        ROOM(made, int32_t, (size_t)room * engine->columns)
        Matrix matrix[18], *next = matrix;
        Argument arguments[20], *add = arguments;
        told = engine->largest_percent;
        *add++ = number(threads);
        *add++ = array(next++, engine->effort, DL_INT, 64, 2, engine->types);
        *add++ = LONGS(work->type_count.data, engine->types);
        *add++ = SHORTS(work->node_type.data, nodes);
        *add++ = INTS(work->node_ptr.data, instances + 1);
        *add++ = INTS(work->operand_ptr.data, nodes + 1);
        *add++ = INTS(work->operand_value.data, edges ? edges : 1);
        *add++ = number(engine->stride);
        *add++ = INTS(work->order.data, nodes);
        *add++ = INTS(work->batch_ptr.data, batches + 1);
        *add++ = INTS2(work->steps.data, batches, engine->columns);
        *add++ = LONGS(engine->most_of_piece, engine->types);
        *add++ = INTS2(engine->cells, engine->types, CELL_COLUMNS);
        *add++ = cell_operands(engine, next++, shape, strides);
        *add++ = LONGS(fixed, threads);
        *add++ = INTS2(first_node, 2, threads + 1);
        *add++ = INTS2(split, batches, threads + 1);
        *add++ = INTS2(made, room, engine->columns);
        *add++ = INTS(shares, threads + 1);
        *add++ = LONGS(&told, 1);
        int outcome = called(engine, engine->divide, arguments, add - arguments);
        if (outcome != DONE) return outcome;
        if (told <= room) break;
    }
    if (!told) return cut_batches(engine, work, threads);
    work->runs = (int32_t)told;
    work->in_shares = threads;
    return DONE;
}

/* The steps that run. */
static int32_t *steps_of(Work *work) {
    return work->in_shares == 1 && work->runs == work->batches ? work->steps.data : work->made.data;
}

/* Attributes of what is recorded in the order of the schedule; moves the places. */
static void order_numbers(Engine *engine, Work *work, char *attributes, int64_t *place) {
    int32_t nodes = work->nodes, *order = work->order.data, *numbers_at = work->numbers_at.data;
    int16_t *node_type = work->node_type.data;
    int64_t *numbers = work->numbers.data;
    for (int32_t n = 0; n < nodes; n++) {
        int32_t node = order[n], first = engine->attribute_first[node_type[node]];
        for (int32_t a = first; a < engine->attribute_first[node_type[node] + 1]; a++) {
            int64_t value = numbers[numbers_at[node] + a - first];
            if (engine->attributes[a].bytes == 8) *(int64_t *)(attributes + place[a]) = value;
            else *(int32_t *)(attributes + place[a]) = (int32_t)value;
            place[a] += engine->attributes[a].bytes;
        }
    }
}

/* The table of types: addresses of attributes, which lie in the order of the schedule. */
static int put_attributes(Engine *engine, Work *work, PyObject *from, const void *loaded, int64_t *types_of) {
    int64_t *type_count = work->type_count.data;
    memcpy(types_of, loaded, (size_t)engine->types * engine->width * sizeof(int64_t));
    if (!engine->addresses) return DONE;
    ROOM(counter, int64_t, engine->attribute_first[engine->types] + 1) /* where the next number of each attribute goes */
    size_t bytes = attribute_places(engine, type_count, counter);
    ROOM(attributes, char, bytes + ALIGNED)
    for (int32_t n = 0; n < engine->addresses; n++) {
        Address *address = engine->address + n;
        if (type_count[address->type])
            types_of[(size_t)address->type * engine->width + address->column] =
                (int64_t)(uintptr_t)(attributes + counter[engine->attribute_first[address->type] + address->number]);
    }
    if (PyTuple_CheckExact(from)) return order_attributes(engine, work, from, attributes, counter, bytes);
    order_numbers(engine, work, attributes, counter);
    return DONE;
}

/* The arguments of the program. */
static int prepare(Values *self, PyObject *from, const void *loaded, int64_t *io) {
    static int32_t no_copies[5], no_copy_ptr[1];
    Engine *engine = self->engine;
    Work *work = self->work;
    int32_t *arena_rows = work->arena_rows.data;
    for (int32_t n = 0; n < engine->arenas; n++) {
        int outcome = have_rows(self, n, arena_rows[n]);
        if (outcome != DONE) return outcome;
    }
    ROOM(types, int64_t, (size_t)engine->types * engine->width)
    int outcome = put_attributes(engine, work, from, loaded, types);
    if (outcome != DONE) return outcome;
    Matrix *next = work->matrix;
    Argument *add = work->arguments;
    *add++ = number(1);
    *add++ = number(ALL_TASKS);
    *add++ = INTS(work->shares.data, work->in_shares + 1);
    *add++ = LONGS(work->board, 32);
    *add++ = INTS2(steps_of(work), work->runs, engine->columns);
    *add++ = INTS(work->index.data, io[FILLED] ? io[FILLED] : 1);
    *add++ = INTS2(no_copies, 1, 5);
    *add++ = INTS(no_copy_ptr, 1);
    *add++ = array(next++, types, DL_INT, 64, engine->types, engine->width);
    for (int32_t n = 0; n < engine->inputs; n++) {
        Input *input = engine->input + n;
        if (input->arena >= 0) {
            Arena *arena = self->arenas[input->arena];
            *add++ = array(next++, arena->data, DL_FLOAT, 8 * engine->item, arena->shape[0], arena->shape[1]);
        } else {
            int64_t rows = io[input->of_rows ? MOST_ROWS : LARGEST] * work->in_shares;
            void *data = room_for(&work->stage[n], (rows + 1) * (size_t)input->width * input->bytes, 0);
            if (data == NULL) return ERROR;
            *add++ = array(next++, data, DL_FLOAT, 8 * input->bytes, rows, input->width);
        }
    }
    work->given = add - work->arguments;
    return DONE;
}

/* Threads of TVM's pool that run the tasks of a program. */
typedef struct {
    Engine *engine;
    Work *work;
    int64_t tasks;
    Cores cores;
    _Atomic int failed;
} Crew;

/* What TVM says of the threads that it calls. */
struct Group {
    void *barrier;
    int32_t threads;
};

static int run_tasks(int thread, struct Group *group, void *data) {
    Crew *crew = data;
    Work *work = crew->work;
    Argument arguments[9 + MOST_INPUTS];
    leave_core(&crew->cores);
    memcpy(arguments, work->arguments, work->given * sizeof(Argument));
    for (int64_t task = thread; task < crew->tasks; task += group->threads) {
        arguments[ARGUMENT_TASK] = number(task);
        if (called(crew->engine, crew->engine->program, arguments, work->given) != DONE) crew->failed = 1;
    }
    return 0;
}

/* Run the program on `tasks` threads. */
static int run_program(Engine *engine, Work *work, int64_t tasks) {
    if (tasks == 1 || !engine->chooses_cores) return called(engine, engine->program, work->arguments, work->given);
    work->arguments[ARGUMENT_TASK] = number(CLEAR_BOARD);
    if (called(engine, engine->program, work->arguments, work->given) != DONE) return UNUSUAL;
    Crew crew = {.engine = engine, .work = work, .tasks = tasks, .cores = cores_beside(tasks)};
    if (engine->launch(run_tasks, &crew, 0)) return UNUSUAL;
    return crew.failed ? UNUSUAL : DONE;
}

/* Run the round that is prepared on `tasks` threads, and know its values. */
static int execute(Values *self, int64_t tasks) {
    Engine *engine = self->engine;
    Work *work = self->work;
    int outcome;
    Py_BEGIN_ALLOW_THREADS
    outcome = run_program(engine, work, tasks);
    Py_END_ALLOW_THREADS
    if (outcome != DONE) return outcome;
    int32_t *ids = work->ids.data, *value_row = work->value_row.data;
    int16_t *node_type = work->node_type.data;
    Place *place = self->values.places + self->first;
    for (Py_ssize_t n = 0; n < self->count; n++, place++) {
        int32_t node = ids[n] / engine->stride;
        place->row = value_row[ids[n]] + 1;
        place->group = engine->output_arena[node_type[node] * engine->stride + ids[n] % engine->stride];
    }
    memcpy(self->used, work->arena_rows.data, engine->arenas * sizeof(int32_t));
    return DONE;
}

/* What a report says, as bytes: numbers, the arrays of the plan and the schedule, and (`whole`) those of the graph; see
 * round_report.py. */
static PyObject *facts(Engine *engine, Work *work, Py_ssize_t calls, int32_t edges, int32_t others, int64_t *schedule,
                       int64_t *plan, int64_t *stages, int whole) {
    int32_t nodes = work->nodes, batches = work->batches;
    int64_t first[FACTS] = {calls, nodes, edges, others, batches, schedule[MISSES]};
    memcpy(first + 6, plan, FILL_IO * sizeof(int64_t));
    for (int n = 0; n < STAGES; n++) first[6 + FILL_IO + n] = stages[n + 1] - stages[n];
    first[FACTS - 1] = work->calls;
    const struct { const void *data; size_t bytes; } parts[] = {
        {first, sizeof(first)},
        {work->value_row.data, (size_t)nodes * engine->stride * sizeof(int32_t)},
        {work->order.data, nodes * sizeof(int32_t)},
        {work->batch_ptr.data, (batches + 1) * sizeof(int32_t)},
        {work->batch_type.data, batches * sizeof(int16_t)},
        {work->operand_ptr.data, (nodes + 1) * sizeof(int32_t)},
        {work->operand_value.data, edges * sizeof(int32_t)},
        {work->outside_row.data, others * sizeof(int32_t)},
        {work->external.data, others * sizeof(int32_t)},
        {work->node_type.data, nodes * sizeof(int16_t)},
    };
    size_t bytes = 0, count = whole ? sizeof(parts) / sizeof(parts[0]) : OF_SCHEDULE;
    for (size_t n = 0; n < count; n++) bytes += parts[n].bytes;
    PyObject *made = PyBytes_FromStringAndSize(NULL, bytes);
    if (made == NULL) return NULL;
    char *end = PyBytes_AS_STRING(made);
    for (size_t n = 0; n < count; n++) {
        memcpy(end, parts[n].data, parts[n].bytes);
        end += parts[n].bytes;
    }
    return made;
}

/* The graph of a round, with who reads what. */
static int graph_of_round(Values *self, Recorded *recorded, PyObject *from, int merge, int32_t *edges, int32_t *others) {
    Engine *engine = self->engine;
    Work *work = self->work;
    int outcome = PyList_CheckExact(from) ? read_packed(work, recorded, from) : read_recorder(engine, work, recorded, from);
    if (outcome == DONE) outcome = have_places(&self->values, recorded->recorded);
    if (outcome == DONE)
        outcome = have_places(&self->outside, recorded->rows != NULL
                                                  ? recorded->all_rows
                                                  : PyList_GET_SIZE(SLOT(recorded->outside, Outside_row)));
    if (outcome != DONE) return outcome;
    self->round++;
    self->first = recorded->done;
    self->count = recorded->recorded - recorded->done;
    outcome = make_graph(self, recorded, merge, edges, others);
    return outcome == DONE ? find_users(engine, work, *edges) : outcome;
}

static int run_round(Values *self, Recorded *recorded, PyObject *from, Rule *rule, const void *loaded, int merge,
                     int64_t threads, double *multiplies, PyObject **told) {
    Engine *engine = self->engine;
    int32_t edges = 0, others = 1;
    int64_t schedule[SCHEDULE_IO + MOST_TYPES] = {0}, plan[FILL_IO] = {0};
    if (engine->types > MOST_TYPES) return UNUSUAL;
    int outcome = take_work(self);
    if (outcome != DONE) return outcome;
    Work *work = self->work;
    int instances = PyTuple_CheckExact(from);
    int64_t stages[1 + STAGES] = {nanoseconds()}; /* before the first, after each: the graph, the schedule, the plan */
    outcome = instances ? merge_instances(engine, work, from, recorded->signature, &edges)
                        : graph_of_round(self, recorded, from, merge, &edges, &others);
    stages[1] = nanoseconds();
    if (outcome == DONE) outcome = make_schedule(engine, work, rule, schedule);
    if (outcome == DONE && schedule[FAILED]) outcome = UNUSUAL;
    if (outcome != DONE) return outcome;
    stages[2] = nanoseconds();
    work->batches = (int32_t)schedule[BATCHES];
    outcome = make_plan(self, edges, others, plan);
    *multiplies = 0;
    int64_t *type_count = work->type_count.data;
    for (int32_t type = 0; type < engine->types; type++) *multiplies += type_count[type] * engine->multiplies[type];
    if (outcome == DONE) outcome = cut_batches(engine, work, threads);
    if (outcome == DONE && instances && engine->divide != NULL && threads > 1 && *multiplies >= engine->alone_below)
        outcome = divide_instances(engine, work, (int32_t)PyTuple_GET_SIZE(from), edges, (int32_t)threads);
    if (outcome == DONE) outcome = prepare(self, from, loaded, plan);
    if (outcome != DONE) return outcome;
    stages[3] = nanoseconds();
    *told = facts(engine, work, instances ? work->nodes : recorded->calls, edges, others, schedule, plan, stages,
                  !instances);
    if (*told == NULL) return ERROR;
    if (*multiplies >= engine->alone_below) return DONE; /* on how many threads, Python says */
    outcome = execute(self, 1);
    *multiplies = -1;
    if (outcome != DONE) Py_CLEAR(*told);
    give_back_work(self);
    return outcome;
}

/* run(recorder, type_ids, places, types, rule, encoding, key, action, merge, threads): multiplications that are left to
 * execute(), or -1, in how many shares, and what a report says; None if it is a round for Python. In the place of a recorder, a list of
 * packed calls, and `places` those of tensors from outside; or a tuple of rows of instance graphs, no places, and in the
 * place of `merge` the identity of their signature. See rounds.py and one_call.py. */
static PyObject *values_run(PyObject *own, PyObject *const *arguments, Py_ssize_t count) {
    Values *self = (Values *)own;
    if (count != 10) return PyErr_Format(PyExc_TypeError, "run takes 10 arguments, not %zd", count);
    PyObject *from = arguments[0], *told = NULL;
    Recorded recorded = {0};
    int packed = PyList_CheckExact(from);
    if (!packed && !PyTuple_CheckExact(from)) {
        if (!IS(from, Recorder)) Py_RETURN_NONE;
        recorded.outside = SLOT(from, Recorder_outside);
        if (!PyList_CheckExact(SLOT(from, Recorder_types)) || !PyList_CheckExact(SLOT(from, Recorder_ends)) ||
            !PyList_CheckExact(SLOT(from, Recorder_operands)) || !PyDict_Check(SLOT(from, Recorder_attributes)) ||
            !IS(recorded.outside, Outside) || !PyList_CheckExact(SLOT(recorded.outside, Outside_row)) ||
            PyList_GET_SIZE(SLOT(from, Recorder_types)) != PyList_GET_SIZE(SLOT(from, Recorder_ends)) ||
            integer(SLOT(from, Recorder_done), &recorded.done) != DONE ||
            integer(SLOT(from, Recorder_recorded), &recorded.recorded) != DONE || recorded.done < 0)
            Py_RETURN_NONE;
        recorded.tables = PyObject_GetAttr(SLOT(recorded.outside, Outside_tables), str__tables);
        if (recorded.tables == NULL) return NULL;
    }
    Rule rule = {.rule = PyLong_AsLong(arguments[4]), .encoding = PyLong_AsLong(arguments[5])};
    int merge = PyObject_IsTrue(arguments[8]), have = 0;
    if (PyTuple_CheckExact(from)) recorded.signature = PyLong_AsLongLong(arguments[8]);
    int64_t threads = PyLong_AsLongLong(arguments[9]);
    int outcome = PyErr_Occurred() ? ERROR : DONE;
    Py_buffer type_ids = {0}, places = {0}, types = {0};
    const struct { Py_buffer *view; PyObject *from; } views[] = {
        {&type_ids, arguments[1]}, {&types, arguments[3]}, {&rule.key, arguments[6]}, {&rule.action, arguments[7]},
        {&places, arguments[2]}};
    double multiplies = -1;
    for (; have < 5 - (arguments[2] == Py_None) && outcome == DONE; have++)
        if (PyObject_GetBuffer(views[have].from, views[have].view, PyBUF_C_CONTIGUOUS) < 0) {
            outcome = ERROR;
            have--;
        }
    if (outcome == DONE && types.len != (Py_ssize_t)self->engine->types * self->engine->width * 8) outcome = UNUSUAL;
    if (outcome == DONE) {
        recorded.type_ids = type_ids.buf;
        recorded.cells = type_ids.len / sizeof(int16_t);
        *(packed ? &recorded.rows : &recorded.earlier) = places.buf;
        *(packed ? &recorded.all_rows : &recorded.before) = places.len / (2 * sizeof(int64_t));
        if (packed && recorded.rows == NULL) outcome = UNUSUAL;
        else outcome = run_round(self, &recorded, from, &rule, types.buf, merge, threads, &multiplies, &told);
    }
    if (outcome != DONE) give_back_work(self);
    while (have-- > 0) PyBuffer_Release(views[have].view);
    Py_XDECREF(recorded.tables);
    if (outcome == ERROR) return NULL;
    if (outcome == UNUSUAL) Py_RETURN_NONE;
    int shares = self->work == NULL ? 1 : self->work->in_shares;
    return Py_BuildValue("diN", multiplies, shares, told);
}

/* execute(tasks, board): run the round that run() has left; whether it could be. */
static PyObject *values_execute(PyObject *own, PyObject *const *arguments, Py_ssize_t count) {
    Values *self = (Values *)own;
    Py_buffer board;
    if (count != 2 || self->work == NULL) return PyErr_Format(PyExc_TypeError, "tasks and a board, after run()");
    long tasks = PyLong_AsLong(arguments[0]);
    if (tasks == -1 && PyErr_Occurred()) return NULL;
    if (PyObject_GetBuffer(arguments[1], &board, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE) < 0) return NULL;
    self->work->arguments[ARGUMENT_TASKS] = number(tasks);
    self->work->arguments[ARGUMENT_BOARD] = array(&self->work->matrix[1], board.buf, DL_INT, 64, board.len / 8, -1);
    int outcome = execute(self, tasks);
    give_back_work(self);
    PyBuffer_Release(&board);
    return outcome == ERROR ? NULL : PyBool_FromLong(outcome == DONE);
}

static PyMethodDef values_methods[] = {
    {"arena", values_arena, METH_O, "The rows of an arena."},
    {"place", values_place, METH_O, "Arena and row of a value."},
    {"find", (PyCFunction)(void (*)(void))values_find, METH_FASTCALL, "Arenas and rows of values."},
    {"copy", (PyCFunction)(void (*)(void))values_copy, METH_FASTCALL, "Values of one arena, one a row."},
    {"extremes", (PyCFunction)(void (*)(void))values_extremes, METH_FASTCALL, "Places of the largest or smallest."},
    {"run", (PyCFunction)(void (*)(void))values_run, METH_FASTCALL, "Compute what is recorded."},
    {"execute", (PyCFunction)(void (*)(void))values_execute, METH_FASTCALL, "Run what run() has left."},
    {NULL, NULL, 0, NULL},
};
static PyTypeObject ValuesType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "edbatch_recording_core.Values",
    .tp_basicsize = sizeof(Values),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_dealloc = (destructor)values_dealloc,
    .tp_methods = values_methods,
};

#endif
