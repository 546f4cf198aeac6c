#ifndef EDBATCH_VALUES_H
#define EDBATCH_VALUES_H
#include "outside.h"

/* The values of a minibatch, computed round by round -----------------------------------------------------------------
 *
 * An Engine is what is known of a compiled model: tables of its cells, and the compiled functions that schedule, plan and
 * run. Values are those of one minibatch: arenas to which every round adds rows, and the row of each value. Since rows
 * stay where they are, a later round reads an earlier value in its place. Rows of tensors from outside, and of values
 * that Python has computed, are copied into the arenas when they are first read.
 */

enum { ZERO_STATE = -1, ALIGNED = 64, FIRST_ROWS = 64, MOST_SPARE_BYTES = 1 << 26, BOARD_WORDS = 64, MOST_INPUTS = 1024 };
enum { CELL_WIDTH, CELL_OPERANDS, CELL_FIXED, CELL_REPEATED, CELL_BOUND, CELL_COLUMNS }; /* see cell_tables.py */

typedef struct {
    void *data;
    size_t bytes;
} Room;

/* Memory of at least this size; its contents are kept if `kept` is that of the first bytes. NULL: an exception is set. */
static void *room_for(Room *room, size_t bytes, size_t kept) {
    if (room->bytes >= bytes && room->data != NULL) return room->data;
    size_t size = (bytes + bytes / 2 + 4 * ALIGNED) / ALIGNED * ALIGNED;
    void *data = aligned_alloc(ALIGNED, size);
    if (data == NULL) return PyErr_NoMemory();
    if (kept) memcpy(data, room->data, kept);
    free(room->data);
    *room = (Room){data, size};
    return data;
}

/* Rows of float32 or float64 in memory of their own, which NumPy sees as a matrix. */
typedef struct {
    PyObject_HEAD
    char *data;
    Py_ssize_t shape[2], strides[2], exports;
} Arena;
static PyTypeObject ArenaType;

static Arena *new_arena(Py_ssize_t rows, Py_ssize_t width, Py_ssize_t item) {
    Arena *made = PyObject_New(Arena, &ArenaType);
    if (made == NULL) return NULL;
    made->exports = 0;
    made->shape[0] = rows;
    made->shape[1] = width;
    made->strides[0] = width * item;
    made->strides[1] = item;
    /* A vector load of the last columns of a row that is no multiple of the lanes may end in the next row. */
    made->data = aligned_alloc(ALIGNED, (size_t)(rows + 1) * made->strides[0]);
    if (made->data == NULL) {
        PyObject_Free(made);
        return (Arena *)PyErr_NoMemory();
    }
    memset(made->data, 0, made->strides[0]); /* row 0 is the zero state */
    return made;
}

static void arena_dealloc(Arena *self) {
    free(self->data);
    PyObject_Free(self);
}

static int arena_buffer(PyObject *self, Py_buffer *view, int flags) {
    Arena *arena = (Arena *)self;
    *view = (Py_buffer){.buf = arena->data, .len = arena->shape[0] * arena->strides[0], .itemsize = arena->strides[1],
                        .format = arena->strides[1] == sizeof(double) ? "d" : "f", .ndim = 2, .shape = arena->shape, .strides = arena->strides};
    view->obj = Py_NewRef(self);
    arena->exports++;
    return 0;
}

static void arena_release(PyObject *self, Py_buffer *view) { ((Arena *)self)->exports--; }

static PyBufferProcs arena_procs = {arena_buffer, arena_release};
static PyTypeObject ArenaType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "edbatch_recording_core.Arena",
    .tp_basicsize = sizeof(Arena),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_dealloc = (destructor)arena_dealloc,
    .tp_as_buffer = &arena_procs,
};

/* TVM's functions, as far as its FFI is used. */
typedef struct {
    int32_t kind, padding;
    union {
        int64_t number;
        void *pointer;
    };
} Argument;
enum { FFI_NONE = 0, FFI_INT = 1, FFI_TENSOR = 7 };

typedef struct {
    DLTensor tensor;
    int64_t shape[2], strides[2];
} Matrix;

struct Group;

/* What rounds work with; two minibatches at a time have one each. */
typedef struct Work {
    struct Work *next;
    Room cells, ends, operands, integers, node_type, ids, operand_ptr, operand_value, outside_row, external, numbers, numbers_at, table, use_ptr, user,
        waits, last_user, type_count, schedule_work, order, batch_ptr, batch_type, learning, base, steps, made, piece_of, node_ptr, shares, fixed, first_node, split, index,
        value_row, attribute_row, fill_work, types, attributes, counter, arena_rows, stage[MOST_INPUTS];
    _Alignas(ALIGNED) int64_t board[BOARD_WORDS];
    Matrix matrix[7 + MOST_INPUTS];
    Argument arguments[9 + MOST_INPUTS];
    int32_t given, nodes, batches;
    int32_t runs, in_shares, calls; /* the steps of all shares; how many shares; the kernels of all batches */
} Work;

typedef struct {
    int32_t bytes; /* of each number; 0: not one that is read here */
    int64_t bound; /* numbers are below it; -1: any */
} Attribute;
typedef struct { int32_t type, column, number; } Address;
typedef struct { int32_t arena, of_rows, width, bytes; } Input; /* an arena, or (-1) what stages hand on */

typedef struct {
    PyObject_HEAD
    PyObject *kept; /* the objects whose addresses are used */
    int32_t types, stride, most, columns, arenas, inputs, addresses, width, item; /* bytes of a number */
    int32_t *output_arena, *cells, *operands, *arena_size, *arena_width, *attribute_first;
    int64_t *most_of_piece, *kernels; /* of each type: nodes of a piece of a batch in one thread; kernels of a batch */
    Attribute *attributes;
    Address *address;
    Input *input;
    int64_t *effort, largest_percent; /* for `divide`: see shares.py */
    double *multiplies, alone_below;
    void *schedule, *fill, *depth, *program, *cut, *divide; /* `divide`: NULL where minibatches are not divided */
    int (*call)(void *function, Argument *arguments, int32_t count, Argument *result);
    void (*take_error)(void **error);
    int (*let_go)(void *object);
    int (*launch)(int (*task)(int, struct Group *, void *), void *data, int32_t tasks); /* of TVM's pool; 0 tasks: all */
    int chooses_cores; /* whether TVM leaves the cores of its threads alone */
    Arena **spare;
    Work *work;
} Engine;
static PyTypeObject EngineType;

static void free_work(Work *work) {
    Room *rooms = &work->cells;
    for (Room *room = rooms; room < work->stage + MOST_INPUTS; room++) free(room->data);
    free(work);
}

static void engine_dealloc(Engine *self) {
    for (int32_t n = 0; self->spare != NULL && n < self->arenas; n++) Py_XDECREF(self->spare[n]);
    for (Work *work = self->work, *next; work != NULL; work = next) {
        next = work->next;
        free_work(work);
    }
    void *parts[] = {self->output_arena, self->cells, self->operands, self->arena_size, self->arena_width,
                     self->attribute_first, self->attributes, self->address, self->input, self->multiplies, self->spare,
                     self->most_of_piece, self->kernels, self->effort};
    for (size_t n = 0; n < sizeof(parts) / sizeof(parts[0]); n++) free(parts[n]);
    Py_XDECREF(self->kept);
    PyObject_Free(self);
}

static PyTypeObject EngineType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "edbatch_recording_core.Engine",
    .tp_basicsize = sizeof(Engine),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_dealloc = (destructor)engine_dealloc,
};

/* A copy of an array of Python's; `count` is how many items of this size it has. */
static void *copied(PyObject *array, size_t item, int32_t *count) {
    Py_buffer view;
    if (PyObject_GetBuffer(array, &view, PyBUF_C_CONTIGUOUS) < 0) return NULL;
    void *made = malloc(view.len ? view.len : 1);
    if (made == NULL) PyErr_NoMemory();
    else memcpy(made, view.buf, view.len);
    if (count != NULL) *count = view.len / item;
    PyBuffer_Release(&view);
    return made;
}

/* engine(kept, sizes, output_arena, cells, operands, arena_size, arena_width, attribute_first, attributes, addresses,
 *        inputs, multiplies, most_of_piece, kernels, effort, alone_below, largest_percent, functions): see round_engine.py. */
static PyObject *engine(PyObject *module, PyObject *arguments) {
    PyObject *kept, *parts[13], *functions;
    int types, stride, most, columns, width, item;
    double alone_below;
    long long largest_percent;
    if (!PyArg_ParseTuple(arguments, "O(iiiiii)OOOOOOOOOOOOOdLO", &kept, &types, &stride, &most, &columns, &width, &item,
                          &parts[0], &parts[1], &parts[2], &parts[3], &parts[4], &parts[5], &parts[6], &parts[7], &parts[8],
                          &parts[9], &parts[10], &parts[11], &parts[12], &alone_below, &largest_percent,
                          &functions))
        return NULL;
    Engine *made = PyObject_New(Engine, &EngineType);
    if (made == NULL) return NULL;
    memset((char *)made + sizeof(PyObject), 0, sizeof(Engine) - sizeof(PyObject));
    made->kept = Py_NewRef(kept);
    made->types = types;
    made->stride = stride;
    made->most = most;
    made->columns = columns;
    made->width = width;
    made->item = item;
    made->alone_below = alone_below;
    made->largest_percent = largest_percent;
    const char *binds = getenv("TVM_BIND_THREADS");
    made->chooses_cores = binds != NULL && !strcmp(binds, "0");
    int64_t *pairs = NULL, *places = NULL;
    int32_t count = 0, given = 0;
    if ((made->output_arena = copied(parts[0], 4, NULL)) == NULL || (made->cells = copied(parts[1], 4, NULL)) == NULL ||
        (made->operands = copied(parts[2], 4, NULL)) == NULL ||
        (made->arena_size = copied(parts[3], 4, &made->arenas)) == NULL ||
        (made->arena_width = copied(parts[4], 4, NULL)) == NULL ||
        (made->attribute_first = copied(parts[5], 4, NULL)) == NULL || (pairs = copied(parts[6], 16, &count)) == NULL ||
        (made->address = copied(parts[7], sizeof(Address), &made->addresses)) == NULL ||
        (made->input = copied(parts[8], sizeof(Input), &made->inputs)) == NULL ||
        (made->multiplies = copied(parts[9], 8, NULL)) == NULL ||
        (made->most_of_piece = copied(parts[10], 8, NULL)) == NULL ||
        (made->kernels = copied(parts[11], 8, NULL)) == NULL || (made->effort = copied(parts[12], 8, NULL)) == NULL ||
        (places = copied(functions, 8, &given)) == NULL)
        goto failed;
    made->attributes = malloc((count + 1) * sizeof(Attribute));
    made->spare = calloc(made->arenas + 1, sizeof(Arena *));
    if (made->attributes == NULL || made->spare == NULL) {
        PyErr_NoMemory();
        goto failed;
    }
    for (int32_t n = 0; n < count; n++) made->attributes[n] = (Attribute){(int32_t)pairs[2 * n], pairs[2 * n + 1]};
    if (given != 10 || made->inputs > MOST_INPUTS) {
        PyErr_SetString(PyExc_ValueError, "addresses of 10 functions, and as many inputs as MOST_INPUTS says");
        goto failed;
    }
    made->schedule = (void *)places[0];
    made->fill = (void *)places[1];
    made->depth = (void *)places[2];
    made->program = (void *)places[3];
    made->cut = (void *)places[4];
    made->divide = (void *)places[5];
    made->call = (int (*)(void *, Argument *, int32_t, Argument *))places[6];
    made->take_error = (void (*)(void **))places[7];
    made->let_go = (int (*)(void *))places[8];
    made->launch = (int (*)(int (*)(int, struct Group *, void *), void *, int32_t))places[9];
    free(pairs);
    free(places);
    return (PyObject *)made;
failed:
    free(pairs);
    free(places);
    Py_DECREF(made);
    return NULL;
}

/* The values of a minibatch. */
typedef struct {
    int32_t row, group; /* row + 1, or 0 where it is not known; the arena */
    int32_t name, named; /* what the round of this number calls it: the operand -1 - name */
} Place;

typedef struct {
    Place *places;
    Py_ssize_t count, room;
} Places;

typedef struct {
    PyObject_HEAD
    Engine *engine;
    Work *work;
    Arena **arenas;
    int32_t *used, round;
    Places values, outside;
    Py_ssize_t first; /* the first value of the round that runs */
    Py_ssize_t count; /* the values of the round that runs */
} Values;
static PyTypeObject ValuesType;

/* Have places for `count`; those that are new are not known. */
static int have_places(Places *places, Py_ssize_t count) {
    if (count > places->room) {
        Py_ssize_t room = count + count / 2 + 256;
        Place *more = realloc(places->places, room * sizeof(Place));
        if (more == NULL) {
            PyErr_NoMemory();
            return ERROR;
        }
        places->places = more;
        places->room = room;
    }
    if (count > places->count) {
        memset(places->places + places->count, 0, (count - places->count) * sizeof(Place));
        places->count = count;
    }
    return DONE;
}

/* Have room for rows in an arena. UNUSUAL: more than kernels can count. */
static int have_rows(Values *self, int32_t arena, int64_t rows) {
    Arena *own = self->arenas[arena];
    if (own != NULL && rows <= own->shape[0]) return DONE;
    int64_t width = self->engine->arena_width[arena], most = INT32_MAX / width - 1;
    if (rows > most) return UNUSUAL;
    int64_t room = own == NULL ? FIRST_ROWS : 2 * own->shape[0];
    room = room < rows ? rows + rows / 4 : room;
    Arena *made = new_arena(room < most ? room : most, width, self->engine->item);
    if (made == NULL) return ERROR;
    if (own != NULL) memcpy(made->data, own->data, self->used[arena] * own->strides[0]);
    self->arenas[arena] = made;
    Py_XDECREF(own);
    return DONE;
}

static PyObject *values_of_engine(PyObject *module, PyObject *given) {
    if (Py_TYPE(given) != &EngineType) return PyErr_Format(PyExc_TypeError, "an Engine");
    Engine *engine = (Engine *)given;
    Values *made = PyObject_New(Values, &ValuesType);
    if (made == NULL) return NULL;
    memset((char *)made + sizeof(PyObject), 0, sizeof(Values) - sizeof(PyObject));
    made->engine = (Engine *)Py_NewRef(given);
    made->arenas = calloc(engine->arenas + 1, sizeof(Arena *));
    made->used = calloc(engine->arenas + 1, sizeof(int32_t));
    if (made->arenas == NULL || made->used == NULL) {
        Py_DECREF(made);
        return PyErr_NoMemory();
    }
    for (int32_t n = 0; n < engine->arenas; n++) {
        made->arenas[n] = engine->spare[n];
        engine->spare[n] = NULL;
        made->used[n] = 1;
        if (have_rows(made, n, 1) != DONE) {
            Py_DECREF(made);
            return NULL;
        }
    }
    return (PyObject *)made;
}

static int take_work(Values *self) {
    if (self->work != NULL) return DONE;
    if ((self->work = self->engine->work) != NULL) self->engine->work = self->work->next;
    else if ((self->work = aligned_alloc(ALIGNED, sizeof(Work))) == NULL) {
        PyErr_NoMemory();
        return ERROR;
    } else
        memset(self->work, 0, sizeof(Work));
    return DONE;
}

static void give_back_work(Values *self) {
    if (self->work == NULL) return;
    size_t bytes = 0;
    /* Rooms of inputs that this engine does not have are empty. */
    for (Room *room = &self->work->cells; room < self->work->stage + self->engine->inputs; room++) bytes += room->bytes;
    if (bytes > MOST_SPARE_BYTES) {
        free_work(self->work);
        self->work = NULL;
        return;
    }
    self->work->next = self->engine->work;
    self->engine->work = self->work;
    self->work = NULL;
}

static void values_dealloc(Values *self) {
    Engine *engine = self->engine;
    for (int32_t n = 0; self->arenas != NULL && n < engine->arenas; n++) {
        Arena *own = self->arenas[n], *spare = engine->spare[n];
        if (own == NULL) continue;
        int better = Py_REFCNT(own) == 1 && !own->exports && own->shape[0] * own->strides[0] <= MOST_SPARE_BYTES &&
                     (spare == NULL || spare->shape[0] < own->shape[0]);
        if (better) {
            engine->spare[n] = own;
            Py_XDECREF(spare);
        } else
            Py_DECREF(own);
    }
    give_back_work(self);
    free(self->arenas);
    free(self->used);
    free(self->values.places);
    free(self->outside.places);
    Py_DECREF(engine);
    PyObject_Free(self);
}

/* arena(number): the rows, as an object that NumPy reads. */
static PyObject *values_arena(PyObject *own, PyObject *number) {
    Values *self = (Values *)own;
    long place = PyLong_AsLong(number);
    if (place < 0 || place >= self->engine->arenas) return PyErr_Format(PyExc_IndexError, "arena %R", number);
    return Py_NewRef(self->arenas[place]);
}

/* place(value): arena and row; None of one that is not known. */
static PyObject *values_place(PyObject *own, PyObject *number) {
    Values *self = (Values *)own;
    Py_ssize_t value = PyLong_AsSsize_t(number);
    if (value == -1 && PyErr_Occurred()) return NULL;
    if (value < 0 || value >= self->values.count || !self->values.places[value].row) Py_RETURN_NONE;
    return Py_BuildValue("ii", self->values.places[value].group, self->values.places[value].row - 1);
}

/* find(values, places): arenas and rows of int64 `values` into the two rows of int64 `places`. */
static PyObject *values_find(PyObject *own, PyObject *const *arguments, Py_ssize_t count) {
    Values *self = (Values *)own;
    Py_buffer values, places;
    if (count != 2) return PyErr_Format(PyExc_TypeError, "find takes 2 arguments");
    if (PyObject_GetBuffer(arguments[0], &values, PyBUF_C_CONTIGUOUS) < 0) return NULL;
    if (PyObject_GetBuffer(arguments[1], &places, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE) < 0) {
        PyBuffer_Release(&values);
        return NULL;
    }
    Py_ssize_t all = values.len / 8, bad = places.len != 2 * values.len;
    int64_t *value = values.buf, *place = places.buf;
    for (Py_ssize_t n = 0; n < all && !bad; n++) {
        bad = value[n] < 0 || value[n] >= self->values.count || !self->values.places[value[n]].row;
        if (bad) break;
        place[n] = self->values.places[value[n]].group;
        place[all + n] = self->values.places[value[n]].row - 1;
    }
    PyBuffer_Release(&values);
    PyBuffer_Release(&places);
    if (bad) return PyErr_Format(PyExc_ValueError, "values that are not known");
    Py_RETURN_NONE;
}

/* copy(values, rows): whether the values of a list are all in one arena of rows as long as these; they are copied. */
static PyObject *values_copy(PyObject *own, PyObject *const *arguments, Py_ssize_t count) {
    Values *self = (Values *)own;
    if (count != 2 || !PyList_CheckExact(arguments[0])) return PyErr_Format(PyExc_TypeError, "a list, and an array");
    Py_ssize_t all = PyList_GET_SIZE(arguments[0]);
    Py_buffer rows;
    if (PyObject_GetBuffer(arguments[1], &rows, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE) < 0) return NULL;
    size_t bytes = all ? rows.len / all : 0;
    int good = 1;
    for (Py_ssize_t n = 0; n < all && good; n++) {
        Py_ssize_t value = PyLong_AsSsize_t(PyList_GET_ITEM(arguments[0], n));
        Place *place = self->values.places + value;
        good = value >= 0 && value < self->values.count && place->row &&
               bytes == (size_t)self->engine->arena_size[place->group] * self->engine->item;
        if (!good) break;
        Arena *arena = self->arenas[place->group];
        memcpy((char *)rows.buf + n * bytes, arena->data + (place->row - 1) * arena->strides[0], bytes);
    }
    PyBuffer_Release(&rows);
    return PyErr_Occurred() ? NULL : PyBool_FromLong(good);
}

#endif
