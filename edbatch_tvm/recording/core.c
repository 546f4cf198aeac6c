/* The hot path of recording: a call of a cell, the tensors it returns, rows of states, tensors from outside.
 *
 * Every function does what a Python function does, for what models do often; anything else, it gives to that function
 * before it has changed anything. So Python says what is right and which errors there are, and runs where this file
 * cannot be compiled. core.py compiles it and puts the functions in their places.
 *
 * Objects are those of Python. Attributes of classes with __slots__ are read at their offsets, which setup() takes from
 * the descriptors, after a check of the exact class. Tensors are read through DLPack's exchange interface, the only
 * one of PyTorch's that is C and stable.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>
#include <stdint.h>
#include <string.h>

/* DLPack, as far as it is used: a tensor as seen from C, and what fills one in. */
typedef struct {
    void *data;
    struct { int32_t type, id; } device;
    int32_t ndim;
    struct { uint8_t code, bits; uint16_t lanes; } dtype;
    int64_t *shape, *strides;
    uint64_t byte_offset;
} DLTensor;
typedef struct ExchangeHeader {
    struct { uint32_t major, minor; } version;
    struct ExchangeHeader *prev;
} ExchangeHeader;
typedef struct {
    ExchangeHeader header;
    void *allocator, *managed_from_object, *managed_to_object;
    int (*tensor_from_object)(void *object, DLTensor *out);
    void *current_work_stream;
} Exchange;
enum { DL_INT = 0, DL_FLOAT = 2, DL_CPU = 1, DL_MAJOR = 1 };

/* What setup() is given, by name. */
#define CLASSES(X) X(LazyTensor) X(Tensor) X(Recorder) X(CellCall) X(Site) X(TensorSpec) X(RowsSpec) X(Storage) X(Outside)
#define OBJECTS(X) \
    X(wrapper) X(is_inference) X(resolved) X(rows_of) X(call) X(cell_call) X(number) X(is_neg) X(is_grad_enabled) X(is_any_autocast) \
    X(float32) X(INTEGER) X(INDEX) X(FEW) X(Written) X(refusals)
#define SLOTS(X) \
    X(Recorder, types) X(Recorder, ends) X(Recorder, operands) X(Recorder, attributes) X(Recorder, recorded) \
    X(Recorder, finished) X(Recorder, outside) \
    X(CellCall, recorder) X(CellCall, site) \
    X(Site, steps) X(Site, integers_vary) X(Site, reads) X(Site, taken_apart) \
    X(TensorSpec, shape) X(TensorSpec, dtype) X(TensorSpec, size) X(TensorSpec, geometry) X(TensorSpec, rest) \
    X(TensorSpec, rows) X(TensorSpec, spare) X(RowsSpec, stacked) \
    X(Storage, rows) X(Storage, row) X(Storage, listed) X(Storage, whole) X(Storage, spec) \
    X(Outside, specs) X(Outside, known_by_size)
#define NAMES(X) \
    X(recorder) X(value) X(spec) X(held) X(geometry) X(of) X(_written) X(tuple) X(list) X(listed) X(stack) X(constant) \
    X(attribute) X(entered) X(OWN) X(dtype) X(shape) X(requires_grad)

#define DECLARE(name) static PyObject *name##_;
#define DECLARE_SLOT(owner, name) static Py_ssize_t owner##_##name;
#define DECLARE_NAME(name) static PyObject *str_##name;
CLASSES(DECLARE) OBJECTS(DECLARE) SLOTS(DECLARE_SLOT) NAMES(DECLARE_NAME)
static PyObject *few[2], *listed_one, *number_of_tuple[8];
static int (*tensor_from_object)(void *, DLTensor *);

#define IS(object, name) ((PyObject *)Py_TYPE(object) == name##_)

/* An attribute, borrowed; None if it was never set. */
static inline PyObject *SLOT(PyObject *object, Py_ssize_t place) {
    PyObject *found = *(PyObject **)((char *)object + place);
    return found == NULL ? Py_None : found;
}

/* Outcomes of what may leave a call to Python; an error is one as in Python, with the exception set. */
enum { ERROR = -1, UNUSUAL = 0, DONE = 1 };

/* An error, unless it is one of those that Python's own way begins with, too. */
static int refused(void) {
    if (!PyErr_ExceptionMatches(refusals_)) return ERROR;
    PyErr_Clear();
    return UNUSUAL;
}

static void set_slot(PyObject *object, Py_ssize_t place, PyObject *stolen) {
    PyObject **slot = (PyObject **)((char *)object + place), *old = *slot;
    *slot = stolen;
    Py_XDECREF(old);
}

/* Tensors that stand for values, and spare ones ------------------------------------------------------------------
 *
 * PyTorch takes a microsecond to make a tensor, and a minibatch thousands of them. So tensors that nobody holds any more
 * are used again, for values of the same spec. This file holds all that it makes, and now and then looks which of them
 * it holds alone. Of these, it takes those that are as they were made: no attribute set, no view made of them, never
 * seen by PyTorch's C++ code (entered() leaves a mark on those that are), and not exchanged for others (OWN).
 */

typedef struct {
    PyObject **items;
    Py_ssize_t count, room;
} Tensors;

typedef struct {
    PyObject_HEAD
    Tensors values, rows; /* those that are one value, those that are rows */
} Spare;
static PyTypeObject SpareType;

static Tensors young, old; /* made since the last minibatch ended, and in the one before */
static Py_ssize_t look_at = 1024, spare_count;
enum { MOST_SPARE = 32768, FIRST_LOOK = 1024 };

static int tensors_add(Tensors *tensors, PyObject *stolen) {
    if (tensors->count == tensors->room) {
        Py_ssize_t room = tensors->room ? 2 * tensors->room : 64;
        PyObject **more = PyMem_Realloc(tensors->items, room * sizeof(PyObject *));
        if (more == NULL) {
            Py_DECREF(stolen); /* one that is not used again */
            return -1;
        }
        tensors->items = more;
        tensors->room = room;
    }
    tensors->items[tensors->count++] = stolen;
    return 0;
}

static void tensors_clear(Tensors *tensors) {
    while (tensors->count) Py_DECREF(tensors->items[--tensors->count]);
    PyMem_Free(tensors->items);
    *tensors = (Tensors){NULL, 0, 0};
}

static void spare_dealloc(Spare *self) {
    spare_count -= self->values.count + self->rows.count;
    tensors_clear(&self->values);
    tensors_clear(&self->rows);
    PyObject_Free(self);
}

static PyTypeObject SpareType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "edbatch_recording_core.Spare",
    .tp_basicsize = sizeof(Spare),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_dealloc = (destructor)spare_dealloc,
};

/* Of a tensor that nobody holds, what it is spare for, if it is as it was made; takes what it held. */
static Tensors *spare_for(PyObject *tensor) {
    PyObject **weak = PyObject_GET_WEAKREFS_LISTPTR(tensor);
    if (!IS(tensor, LazyTensor) || (weak != NULL && *weak != NULL)) return NULL;
    PyObject *own = PyObject_GenericGetDict(tensor, NULL), *spec, *mark;
    Tensors *found = NULL;
    if (own != NULL && PyDict_CheckExact(own) && (mark = PyDict_GetItem(own, str_OWN)) != NULL &&
        PyLong_CheckExact(mark) && PyLong_AsVoidPtr(mark) == (void *)tensor &&
        (spec = PyDict_GetItem(own, str_spec)) != NULL && IS(spec, TensorSpec)) {
        Spare *spare = (Spare *)SLOT(spec, TensorSpec_spare);
        PyObject *held = PyDict_GetItem(own, str_held);
        int value = PyDict_GET_SIZE(own) == 4 && held == NULL && PyDict_GetItem(own, str_value) != NULL;
        int rows = PyDict_GET_SIZE(own) == 5 && held != NULL &&
                   PyDict_GetItem(own, str_geometry) == SLOT(spec, TensorSpec_geometry);
        if (Py_TYPE(spare) == &SpareType && (value || rows) && spare_count < MOST_SPARE &&
            PyDict_SetItem(own, str_recorder, Py_None) == 0 &&
            (value || PyDict_SetItem(own, str_held, Py_None) == 0))
            found = value ? &spare->values : &spare->rows;
    }
    PyErr_Clear();
    Py_XDECREF(own);
    return found;
}

/* Have the spare ones at hand; the others stay in `tensors`, or come to `later`, or are held no more. */
static void look_through(Tensors *tensors, Tensors *later) {
    Tensors all = *tensors; /* what is freed may run code that comes here */
    *tensors = (Tensors){NULL, 0, 0};
    for (Py_ssize_t n = 0; n < all.count; n++) {
        PyObject *tensor = all.items[n];
        if (Py_REFCNT(tensor) > 1) {
            if (later != NULL) tensors_add(later, tensor);
            else Py_DECREF(tensor);
            continue;
        }
        Tensors *place = spare_for(tensor);
        if (place != NULL && tensors_add(place, tensor) == 0) spare_count++;
        else if (place == NULL) Py_DECREF(tensor);
    }
    PyMem_Free(all.items);
}

/* A minibatch has ended: what it held is let go. */
static PyObject *minibatch_ended(PyObject *module, PyObject *unused) {
    look_through(&old, NULL);
    look_through(&young, &old);
    look_at = FIRST_LOOK;
    Py_RETURN_NONE;
}

/* entered(thing): tensors in `thing` have been seen by PyTorch's C++ code. */
static int mark_entered(PyObject *thing, int depth) {
    if (IS(thing, LazyTensor)) return PyObject_GenericSetAttr(thing, str_entered, Py_True);
    if (depth > 8) return 0;
    if (PyTuple_Check(thing) || PyList_Check(thing)) {
        for (Py_ssize_t n = 0; n < PySequence_Fast_GET_SIZE(thing); n++)
            if (mark_entered(PySequence_Fast_GET_ITEM(thing, n), depth + 1) < 0) return -1;
    } else if (PyDict_Check(thing)) {
        PyObject *key, *value;
        Py_ssize_t place = 0;
        while (PyDict_Next(thing, &place, &key, &value))
            if (mark_entered(value, depth + 1) < 0) return -1;
    }
    return 0;
}

static PyObject *entered(PyObject *module, PyObject *thing) {
    if (mark_entered(thing, 0) < 0) return NULL;
    Py_RETURN_NONE;
}

static PyObject *made_tensor(PyObject *recorder, PyObject *spec) {
    PyObject *arguments[] = {LazyTensor_, SLOT(spec, TensorSpec_shape), Py_None, Py_None, Py_None,
                             SLOT(spec, TensorSpec_dtype)};
    PyObject *made = PyObject_Vectorcall(wrapper_, arguments, 6, NULL);
    if (made == NULL) return NULL;
    if (PyObject_GenericSetAttr(made, str_recorder, recorder) < 0 || PyObject_GenericSetAttr(made, str_spec, spec) < 0)
        Py_CLEAR(made);
    return made;
}

/* A tensor of this spec, a spare one or a new one; its other attributes are still to be set. */
static PyObject *new_tensor(PyObject *recorder, PyObject *spec, int rows) {
    PyObject *inference = PyObject_CallNoArgs(is_inference_);
    if (inference == NULL) return NULL;
    Py_DECREF(inference);
    if (inference != Py_False) return made_tensor(recorder, spec); /* PyTorch tells them from others */
    Spare *spare = (Spare *)SLOT(spec, TensorSpec_spare);
    if (Py_TYPE(spare) != &SpareType) {
        if ((spare = PyObject_New(Spare, &SpareType)) == NULL) return NULL;
        spare->values = spare->rows = (Tensors){NULL, 0, 0};
        set_slot(spec, TensorSpec_spare, (PyObject *)spare);
    }
    Tensors *tensors = rows ? &spare->rows : &spare->values;
    if (!tensors->count && young.count >= look_at) {
        look_through(&young, &young);
        look_at = young.count * 2 > FIRST_LOOK ? young.count * 2 : FIRST_LOOK;
    }
    PyObject *made;
    if (tensors->count) {
        made = tensors->items[--tensors->count];
        spare_count--;
        if (PyObject_GenericSetAttr(made, str_recorder, recorder) < 0) Py_CLEAR(made);
    } else if ((made = made_tensor(recorder, spec)) != NULL) {
        PyObject *mark = PyLong_FromVoidPtr(made);
        if (mark == NULL || PyObject_GenericSetAttr(made, str_OWN, mark) < 0) Py_CLEAR(made);
        Py_XDECREF(mark);
    }
    if (made != NULL) tensors_add(&young, Py_NewRef(made));
    return made;
}

/* lazy_value() in lazy.py. */
static PyObject *value_tensor(PyObject *recorder, Py_ssize_t value, PyObject *spec) {
    PyObject *number = PyLong_FromSsize_t(value);
    if (number == NULL) return NULL;
    PyObject *made = new_tensor(recorder, spec, 0);
    if (made != NULL && PyObject_GenericSetAttr(made, str_value, number) < 0) Py_CLEAR(made);
    Py_DECREF(number);
    return made;
}

/* lazy_rows() in lazy.py; takes the list. */
static PyObject *rows_tensor(PyObject *recorder, PyObject *values, PyObject *row) {
    PyObject *made = NULL, *spec = NULL, *held = NULL, *rows, *count;
    rows = SLOT(row, TensorSpec_rows);
    Py_INCREF(rows);
    if (!IS(rows, RowsSpec)) Py_SETREF(rows, PyObject_CallOneArg(rows_of_, row));
    count = PyLong_FromSsize_t(PyList_GET_SIZE(values));
    if (rows == NULL || count == NULL) goto done;
    if (!IS(rows, RowsSpec) || !PyDict_CheckExact(SLOT(rows, RowsSpec_stacked))) {
        PyErr_Format(PyExc_TypeError, "%R is no spec of rows", rows);
        goto done;
    }
    spec = PyDict_GetItemWithError(SLOT(rows, RowsSpec_stacked), count);
    Py_XINCREF(spec);
    if (spec == NULL && !PyErr_Occurred()) spec = PyObject_CallMethodOneArg(rows, str_of, count);
    if (spec != NULL && !IS(spec, TensorSpec)) PyErr_Format(PyExc_TypeError, "%R is no spec of a tensor", spec);
    if (spec == NULL || !IS(spec, TensorSpec)) goto done;
    held = PyType_GenericAlloc((PyTypeObject *)Storage_, 0);
    if (held == NULL) goto done;
    set_slot(held, Storage_rows, Py_NewRef(values));
    set_slot(held, Storage_row, Py_NewRef(SLOT(row, TensorSpec_size)));
    set_slot(held, Storage_listed, Py_NewRef(Py_True));
    set_slot(held, Storage_whole, Py_NewRef(SLOT(spec, TensorSpec_geometry)));
    set_slot(held, Storage_spec, Py_NewRef(rows));
    made = new_tensor(recorder, spec, 1);
    if (made != NULL && (PyObject_GenericSetAttr(made, str_held, held) < 0 ||
                         PyObject_GenericSetAttr(made, str_geometry, SLOT(spec, TensorSpec_geometry)) < 0))
        Py_CLEAR(made);
done:
    Py_DECREF(values);
    Py_XDECREF(rows);
    Py_XDECREF(count);
    Py_XDECREF(spec);
    Py_XDECREF(held);
    return made;
}

/* A recorded tensor of `recorder`: its memory (or None) and spec, new references. */
static int lazy_parts(PyObject *tensor, PyObject *recorder, PyObject **held, PyObject **spec) {
    PyObject *own = PyObject_GenericGetAttr(tensor, str_recorder);
    if (own == NULL) return ERROR;
    Py_DECREF(own);
    if (own != recorder) return UNUSUAL;
    if ((*held = PyObject_GenericGetAttr(tensor, str_held)) == NULL) return ERROR;
    if ((*spec = PyObject_GenericGetAttr(tensor, str_spec)) == NULL) {
        Py_CLEAR(*held);
        return ERROR;
    }
    return DONE;
}

/* The values of recorded tensors of one spec that are one value each, as a list; the first is recorded. */
static int values_alike(PyObject *const *tensors, Py_ssize_t count, PyObject *recorder, PyObject *spec, PyObject **list) {
    PyObject *values = PyList_New(count);
    if (values == NULL) return ERROR;
    int outcome = DONE;
    for (Py_ssize_t n = 0; n < count && outcome == DONE; n++) {
        PyObject *held, *own, *value;
        outcome = IS(tensors[n], LazyTensor) ? lazy_parts(tensors[n], recorder, &held, &own) : UNUSUAL;
        if (outcome != DONE) break;
        if (held != Py_None || own != spec) outcome = UNUSUAL;
        else if ((value = PyObject_GenericGetAttr(tensors[n], str_value)) == NULL) outcome = ERROR;
        else PyList_SET_ITEM(values, n, value);
        Py_DECREF(held);
        Py_DECREF(own);
    }
    if (outcome == DONE) *list = values;
    else Py_DECREF(values);
    return outcome;
}

/* rows_of_values() in lazy.py. */
static PyObject *rows_of_values(PyObject *module, PyObject *const *arguments, Py_ssize_t count) {
    if (count != 2) return PyErr_Format(PyExc_TypeError, "rows_of_values takes 2 arguments, not %zd", count);
    PyObject *tensors = arguments[0], *recorder, *spec, *row, *values;
    if (!PyTuple_CheckExact(tensors) && !PyList_CheckExact(tensors)) Py_RETURN_NONE;
    if (!PySequence_Fast_GET_SIZE(tensors) || !IS(PySequence_Fast_GET_ITEM(tensors, 0), LazyTensor)) Py_RETURN_NONE;
    PyObject *first = PySequence_Fast_GET_ITEM(tensors, 0), *made = NULL;
    if ((recorder = PyObject_GenericGetAttr(first, str_recorder)) == NULL) return NULL;
    spec = PyObject_GenericGetAttr(first, str_spec);
    if (spec != NULL && IS(recorder, Recorder) && IS(spec, TensorSpec)) {
        row = arguments[1] == Py_True ? SLOT(spec, TensorSpec_rest) : spec;
        int outcome = UNUSUAL;
        if (row != Py_None && SLOT(recorder, Recorder_finished) == Py_False)
            outcome = values_alike(PySequence_Fast_ITEMS(tensors), PySequence_Fast_GET_SIZE(tensors), recorder, spec,
                                   &values);
        if (outcome == DONE) made = rows_tensor(recorder, values, row);
        else if (outcome == UNUSUAL) made = Py_NewRef(Py_None);
    } else if (spec != NULL)
        made = Py_NewRef(Py_None);
    Py_DECREF(recorder);
    Py_XDECREF(spec);
    return made;
}

/* What a cell returns: returned_of() in call_fast_paths.py ----------------------------------------------------------- */

typedef struct {
    PyObject_HEAD
    PyObject *specs, *structure; /* None for one tensor by itself, tuple, list, or a function of a list */
} Returned;
static PyTypeObject ReturnedType;

static PyObject *returned_made(Returned *self, PyObject *recorder, Py_ssize_t value) {
    Py_ssize_t count = PyTuple_GET_SIZE(self->specs);
    if (self->structure == Py_None) return value_tensor(recorder, value, PyTuple_GET_ITEM(self->specs, 0));
    int is_tuple = self->structure == (PyObject *)&PyTuple_Type;
    PyObject *all = is_tuple ? PyTuple_New(count) : PyList_New(count);
    for (Py_ssize_t n = 0; n < count && all != NULL; n++) {
        PyObject *made = value_tensor(recorder, value + n, PyTuple_GET_ITEM(self->specs, n));
        if (made == NULL) Py_CLEAR(all);
        else if (is_tuple) PyTuple_SET_ITEM(all, n, made);
        else PyList_SET_ITEM(all, n, made);
    }
    if (all == NULL || is_tuple || self->structure == (PyObject *)&PyList_Type) return all;
    PyObject *result = PyObject_CallOneArg(self->structure, all);
    Py_DECREF(all);
    return result;
}

static PyObject *returned_call(PyObject *self, PyObject *arguments, PyObject *named) {
    PyObject *recorder;
    Py_ssize_t value;
    if (named != NULL && PyDict_GET_SIZE(named)) return PyErr_Format(PyExc_TypeError, "no arguments by name");
    if (!PyArg_ParseTuple(arguments, "On", &recorder, &value)) return NULL;
    return returned_made((Returned *)self, recorder, value);
}

static PyObject *returned_of(PyObject *module, PyObject *const *arguments, Py_ssize_t count) {
    if (count != 2) return PyErr_Format(PyExc_TypeError, "returned_of takes 2 arguments, not %zd", count);
    PyObject *specs = PySequence_Tuple(arguments[0]);
    if (specs == NULL) return NULL;
    for (Py_ssize_t n = 0; n < PyTuple_GET_SIZE(specs); n++)
        if (!IS(PyTuple_GET_ITEM(specs, n), TensorSpec)) {
            Py_DECREF(specs);
            return PyErr_Format(PyExc_TypeError, "outputs are TensorSpecs");
        }
    if (arguments[1] == Py_None && PyTuple_GET_SIZE(specs) != 1) {
        Py_DECREF(specs);
        return PyErr_Format(PyExc_ValueError, "one tensor by itself");
    }
    Returned *made = PyObject_GC_New(Returned, &ReturnedType);
    if (made == NULL) {
        Py_DECREF(specs);
        return NULL;
    }
    made->specs = specs;
    made->structure = Py_NewRef(arguments[1]);
    PyObject_GC_Track(made);
    return (PyObject *)made;
}

static int returned_traverse(Returned *self, visitproc visit, void *arg) {
    Py_VISIT(self->specs);
    Py_VISIT(self->structure);
    return 0;
}

static int returned_clear(Returned *self) {
    Py_CLEAR(self->specs);
    Py_CLEAR(self->structure);
    return 0;
}

static void returned_dealloc(Returned *self) {
    PyObject_GC_UnTrack(self);
    returned_clear(self);
    PyObject_GC_Del(self);
}

static PyTypeObject ReturnedType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "edbatch_recording_core.Returned",
    .tp_basicsize = sizeof(Returned),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_call = returned_call,
    .tp_traverse = (traverseproc)returned_traverse,
    .tp_clear = (inquiry)returned_clear,
    .tp_dealloc = (destructor)returned_dealloc,
};

/* Tensors from outside ------------------------------------------------------------------------------------------ */

/* An ordinary tensor whose numbers lie in memory one after another; `bytes` is how long they are. */
static int plain_tensor(PyObject *tensor, DLTensor *seen, Py_ssize_t *bytes) {
    if (tensor_from_object == NULL) return UNUSUAL;
    if (tensor_from_object(tensor, seen) != 0) {
        PyErr_Clear(); /* sparse, on another device, of torch.func, ...: Python's way says what it is */
        return UNUSUAL;
    }
    if (seen->device.type != DL_CPU || seen->dtype.lanes != 1 || seen->data == NULL || seen->ndim > 16) return UNUSUAL;
    Py_ssize_t count = 1;
    for (int n = seen->ndim - 1; n >= 0; n--) {
        if (seen->strides != NULL && seen->shape[n] != 1 && seen->strides[n] != count) return UNUSUAL;
        count *= seen->shape[n];
    }
    *bytes = count * (seen->dtype.bits / 8);
    PyObject *negative = PyObject_CallOneArg(is_neg_, tensor);
    if (negative == NULL) return ERROR;
    Py_DECREF(negative);
    return *bytes > 0 && negative == Py_False ? DONE : UNUSUAL;
}

enum { MOST_BYTES = 4096 };

/* Outside.number() of a float32 tensor that has been seen, by its bytes; the number is a new reference. */
static int known_number(PyObject *outside, PyObject *tensor, DLTensor *seen, Py_ssize_t bytes, PyObject **number) {
    PyObject *by_size = SLOT(outside, Outside_known_by_size);
    if (bytes > MOST_BYTES || !PyDict_CheckExact(by_size)) return UNUSUAL;
    PyObject *enabled = PyObject_CallNoArgs(is_grad_enabled_);
    if (enabled == NULL) return ERROR;
    Py_DECREF(enabled);
    if (enabled != Py_False) {
        PyObject *wanted = PyObject_GetAttr(tensor, str_requires_grad);
        if (wanted == NULL) return ERROR;
        Py_DECREF(wanted);
        if (wanted != Py_False) return UNUSUAL;
    }
    PyObject *size = PyBytes_FromStringAndSize((char *)seen->shape, seen->ndim * sizeof(int64_t));
    if (size == NULL) return ERROR;
    PyObject *numbers = PyDict_GetItemWithError(by_size, size);
    Py_DECREF(size);
    if (numbers == NULL) return PyErr_Occurred() ? ERROR : UNUSUAL;
    PyObject *content = PyBytes_FromStringAndSize((char *)seen->data + seen->byte_offset, bytes);
    if (content == NULL) return ERROR;
    *number = PyDict_GetItemWithError(numbers, content);
    Py_DECREF(content);
    if (*number == NULL) return PyErr_Occurred() ? ERROR : UNUSUAL;
    Py_INCREF(*number);
    return DONE;
}

static PyObject *outside_number(PyObject *self, PyObject *tensor) {
    DLTensor seen;
    Py_ssize_t bytes;
    PyObject *number;
    if (IS(self, Outside) && IS(tensor, Tensor)) {
        int outcome = plain_tensor(tensor, &seen, &bytes);
        if (outcome == DONE && seen.dtype.code == DL_FLOAT && seen.dtype.bits == 32)
            outcome = known_number(self, tensor, &seen, bytes, &number);
        else if (outcome == DONE)
            outcome = UNUSUAL;
        if (outcome == DONE) return number;
        if (outcome == ERROR) return NULL;
    }
    PyObject *arguments[] = {self, tensor};
    return PyObject_Vectorcall(number_, arguments, 2, NULL);
}

/* A call: Recorder.call() in recorder.py ------------------------------------------------------------------------- */

typedef struct {
    PyObject **items, *own[24];
    Py_ssize_t count, room;
} Items;

typedef struct {
    PyObject *recorder, *step; /* how far the steps of the site have been followed */
    int vary;
    Py_ssize_t rows;
    Items operands, attributes;
} Call;

static void items_begin(Items *items) {
    items->items = items->own;
    items->count = 0;
    items->room = sizeof(items->own) / sizeof(items->own[0]);
}

static int items_add(Items *items, PyObject *stolen) {
    if (stolen == NULL) return ERROR;
    if (items->count == items->room) {
        Py_ssize_t room = 2 * items->room;
        PyObject **more = PyMem_Malloc(room * sizeof(PyObject *));
        if (more == NULL) {
            Py_DECREF(stolen);
            PyErr_NoMemory();
            return ERROR;
        }
        memcpy(more, items->items, items->count * sizeof(PyObject *));
        if (items->items != items->own) PyMem_Free(items->items);
        items->items = more;
        items->room = room;
    }
    items->items[items->count++] = stolen;
    return DONE;
}

static int items_add_list(Items *items, PyObject *list) {
    for (Py_ssize_t n = 0; n < PyList_GET_SIZE(list); n++)
        if (items_add(items, Py_NewRef(PyList_GET_ITEM(list, n))) != DONE) return ERROR;
    return DONE;
}

static void items_end(Items *items) {
    for (Py_ssize_t n = 0; n < items->count; n++) Py_DECREF(items->items[n]);
    if (items->items != items->own) PyMem_Free(items->items);
}

/* Go one step further: `part` of the key. */
static int follow(Call *call, PyObject *part) {
    if (part == NULL) return ERROR;
    if (!PyDict_CheckExact(call->step)) return UNUSUAL;
    PyObject *next = PyDict_GetItemWithError(call->step, part);
    if (next == NULL) return PyErr_Occurred() ? ERROR : UNUSUAL;
    Py_INCREF(next);
    Py_SETREF(call->step, next);
    return DONE;
}

static int follow_new(Call *call, PyObject *part) {
    int outcome = follow(call, part);
    Py_XDECREF(part);
    return outcome;
}

static int follow_structure(Call *call, PyObject *name, Py_ssize_t size) {
    if (name == str_tuple && size < 8) return follow(call, number_of_tuple[size]);
    PyObject *count = PyLong_FromSsize_t(size), *part = count == NULL ? NULL : PyTuple_Pack(2, name, count);
    Py_XDECREF(count);
    return follow_new(call, part);
}

/* Rows: variadic at the top of a call, if all arguments of rows have as many; else stacked inside the cell. */
static int add_rows(Call *call, PyObject *spec, PyObject *values, int top) {
    if (!PyList_CheckExact(values)) return UNUSUAL;
    Py_ssize_t count = PyList_GET_SIZE(values);
    int outcome;
    if (top && (call->rows == -1 || call->rows == count)) {
        call->rows = count;
        outcome = follow(call, spec);
    } else {
        PyObject *number = PyLong_FromSsize_t(count);
        outcome = follow_new(call, number == NULL ? NULL : PyTuple_Pack(3, str_stack, number, spec));
        Py_XDECREF(number);
    }
    return outcome == DONE ? items_add_list(&call->operands, values) : outcome;
}

static int add_recorded(Call *call, PyObject *tensor, int top) {
    PyObject *held, *spec;
    int outcome = lazy_parts(tensor, call->recorder, &held, &spec);
    if (outcome != DONE) return outcome;
    if (held == Py_None) {
        outcome = follow(call, spec);
        if (outcome == DONE) outcome = items_add(&call->operands, PyObject_GenericGetAttr(tensor, str_value));
    } else if (!IS(held, Storage))
        outcome = UNUSUAL;
    else {
        PyObject *geometry = PyObject_GenericGetAttr(tensor, str_geometry);
        if (geometry == NULL) outcome = ERROR;
        else if (geometry == SLOT(held, Storage_whole) && geometry != Py_None)
            outcome = add_rows(call, SLOT(held, Storage_spec), SLOT(held, Storage_rows), top);
        else {
            PyObject *arguments[] = {call->recorder, tensor}, *found = PyObject_Vectorcall(resolved_, arguments, 2, NULL);
            if (found == NULL) outcome = ERROR;
            else if (!PyTuple_CheckExact(found) || PyTuple_GET_SIZE(found) != 2 ||
                     !PyList_CheckExact(PyTuple_GET_ITEM(found, 1)))
                outcome = UNUSUAL;
            else if (IS(PyTuple_GET_ITEM(found, 0), RowsSpec))
                outcome = add_rows(call, PyTuple_GET_ITEM(found, 0), PyTuple_GET_ITEM(found, 1), top);
            else {
                outcome = follow(call, PyTuple_GET_ITEM(found, 0));
                if (outcome == DONE) outcome = items_add_list(&call->operands, PyTuple_GET_ITEM(found, 1));
            }
            Py_XDECREF(found);
        }
        Py_XDECREF(geometry);
    }
    Py_DECREF(held);
    Py_DECREF(spec);
    return outcome;
}

/* An ordinary tensor: float32 numbers are an operand, integers an attribute. */
static int add_ordinary(Call *call, PyObject *tensor) {
    DLTensor seen;
    Py_ssize_t bytes;
    PyObject *outside = SLOT(call->recorder, Recorder_outside);
    if (!call->vary || !IS(outside, Outside)) return UNUSUAL;
    int outcome = plain_tensor(tensor, &seen, &bytes);
    if (outcome != DONE) return outcome;
    if (seen.dtype.code == DL_FLOAT && seen.dtype.bits == 32) {
        PyObject *number;
        outcome = known_number(outside, tensor, &seen, bytes, &number);
        if (outcome == UNUSUAL) {
            PyObject *arguments[] = {outside, tensor};
            number = PyObject_Vectorcall(number_, arguments, 2, NULL);
            outcome = number == NULL ? ERROR : DONE;
        }
        if (outcome != DONE) return outcome;
        Py_ssize_t place = -1 - PyLong_AsSsize_t(number);
        PyObject *specs = SLOT(outside, Outside_specs);
        if (!PyList_CheckExact(specs) || place < 0 || place >= PyList_GET_SIZE(specs)) {
            Py_DECREF(number);
            return PyErr_Occurred() ? ERROR : UNUSUAL;
        }
        outcome = follow(call, PyList_GET_ITEM(specs, place));
        if (outcome == DONE) return items_add(&call->operands, number);
        Py_DECREF(number);
        return outcome;
    }
    if (seen.dtype.code != DL_INT) return UNUSUAL;
    if (seen.ndim == 0) { /* read while it is at hand */
        if (seen.dtype.bits != 64) return UNUSUAL;
        outcome = follow(call, INDEX_);
        return outcome == DONE
                   ? items_add(&call->attributes,
                               PyLong_FromLongLong(*(int64_t *)((char *)seen.data + seen.byte_offset)))
                   : outcome;
    }
    PyObject *dtype = PyObject_GetAttr(tensor, str_dtype), *shape = PyObject_GetAttr(tensor, str_shape);
    outcome = follow_new(call, dtype && shape ? PyTuple_Pack(3, str_attribute, dtype, shape) : NULL);
    Py_XDECREF(dtype);
    Py_XDECREF(shape);
    return outcome == DONE ? items_add(&call->attributes, Py_NewRef(tensor)) : outcome;
}

/* A list of recorded tensors of one spec: any number of them is one cell. */
static int add_list(Call *call, PyObject *list) {
    Py_ssize_t count = PyList_GET_SIZE(list);
    if (!count || (call->rows != -1 && call->rows != count) || !IS(PyList_GET_ITEM(list, 0), LazyTensor)) return UNUSUAL;
    PyObject *spec = PyObject_GenericGetAttr(PyList_GET_ITEM(list, 0), str_spec), *values;
    if (spec == NULL) return ERROR;
    int outcome = UNUSUAL;
    if (IS(spec, TensorSpec) && SLOT(spec, TensorSpec_dtype) == float32_ && SLOT(spec, TensorSpec_rows) != Py_None)
        outcome = values_alike(((PyListObject *)list)->ob_item, count, call->recorder, spec, &values);
    if (outcome == DONE) {
        outcome = follow(call, listed_one);
        if (outcome == DONE) outcome = follow(call, SLOT(spec, TensorSpec_rows));
        if (outcome == DONE) outcome = items_add_list(&call->operands, values);
        Py_DECREF(values);
        call->rows = count;
    }
    Py_DECREF(spec);
    return outcome;
}

static int add(Call *call, PyObject *argument, int depth) {
    PyTypeObject *kind = Py_TYPE(argument);
    if (IS(argument, LazyTensor)) return add_recorded(call, argument, !depth);
    if (IS(argument, Tensor)) return add_ordinary(call, argument);
    if (kind == &PyLong_Type && call->vary) {
        int outcome = follow(call, INTEGER_);
        return outcome == DONE ? items_add(&call->attributes, Py_NewRef(argument)) : outcome;
    }
    if (kind == &PyList_Type && !depth && call->vary) return add_list(call, argument);
    if (kind == &PyTuple_Type || kind == &PyList_Type) {
        if (depth > 8) return UNUSUAL;
        Py_ssize_t count = PySequence_Fast_GET_SIZE(argument);
        int outcome = follow_structure(call, kind == &PyTuple_Type ? str_tuple : str_list, count);
        for (Py_ssize_t n = 0; n < count && outcome == DONE; n++) {
            if (n >= PySequence_Fast_GET_SIZE(argument)) return UNUSUAL; /* a list that somebody has made shorter */
            PyObject *item = Py_NewRef(PySequence_Fast_GET_ITEM(argument, n));
            outcome = add(call, item, depth + 1);
            Py_DECREF(item);
        }
        return outcome;
    }
    if (kind == &PyLong_Type || kind == &PyBool_Type || kind == &PyUnicode_Type || argument == Py_None)
        return follow_new(call, PyTuple_Pack(3, str_constant, (PyObject *)kind, argument));
    return UNUSUAL;
}

/* Append what a call takes to the lists of the recorder; the number of its first value. */
static Py_ssize_t append(Call *call, PyObject *type_id, Py_ssize_t outputs) {
    PyObject *recorder = call->recorder, *operands = SLOT(recorder, Recorder_operands);
    if (PyList_Append(SLOT(recorder, Recorder_types), type_id) < 0) return -1;
    for (Py_ssize_t n = 0; n < call->operands.count; n++)
        if (PyList_Append(operands, call->operands.items[n]) < 0) return -1;
    PyObject *end = PyLong_FromSsize_t(PyList_GET_SIZE(operands));
    if (end == NULL || PyList_Append(SLOT(recorder, Recorder_ends), end) < 0) {
        Py_XDECREF(end);
        return -1;
    }
    Py_DECREF(end);
    if (call->attributes.count) {
        PyObject *own = PyObject_GetItem(SLOT(recorder, Recorder_attributes), type_id); /* a defaultdict makes one */
        if (own == NULL) return -1;
        int failed = !PyList_CheckExact(own);
        for (Py_ssize_t n = 0; n < call->attributes.count && !failed; n++)
            failed = PyList_Append(own, call->attributes.items[n]) < 0;
        Py_DECREF(own);
        if (failed) return -1;
    }
    Py_ssize_t value = PyLong_AsSsize_t(SLOT(recorder, Recorder_recorded));
    PyObject *next = PyLong_FromSsize_t(value + outputs);
    if (next == NULL) return -1;
    set_slot(recorder, Recorder_recorded, next);
    return value;
}

static int record(PyObject *recorder, PyObject *site, PyObject *const *arguments, Py_ssize_t count, PyObject **result) {
    if (!IS(recorder, Recorder) || !IS(site, Site)) return UNUSUAL;
    if (!PyList_CheckExact(SLOT(recorder, Recorder_types)) || !PyList_CheckExact(SLOT(recorder, Recorder_ends)) ||
        !PyList_CheckExact(SLOT(recorder, Recorder_operands)) || !PyLong_CheckExact(SLOT(recorder, Recorder_recorded)))
        return UNUSUAL;
    Call call = {.recorder = recorder, .step = Py_NewRef(SLOT(site, Site_steps)), .rows = -1};
    call.vary = SLOT(site, Site_integers_vary) == Py_True;
    items_begin(&call.operands);
    items_begin(&call.attributes);
    int outcome = DONE;
    for (Py_ssize_t n = 0; n < count && outcome == DONE; n++) outcome = add(&call, arguments[n], 0);
    if (outcome == DONE) outcome = follow(&call, call.rows == 0 || call.rows == 1 ? few[call.rows] : Py_None);
    if (outcome == ERROR) outcome = refused();
    if (outcome == DONE) {
        PyObject *made = call.step; /* type, outputs, what makes the result; a negative type for calls of other kinds */
        if (!PyTuple_CheckExact(made) || PyTuple_GET_SIZE(made) != 3 || !PyTuple_CheckExact(PyTuple_GET_ITEM(made, 1)) ||
            !PyLong_CheckExact(PyTuple_GET_ITEM(made, 0)) || PyLong_AsSsize_t(PyTuple_GET_ITEM(made, 0)) < 0)
            outcome = UNUSUAL;
        else {
            PyObject *returned = PyTuple_GET_ITEM(made, 2);
            Py_ssize_t value = append(&call, PyTuple_GET_ITEM(made, 0), PyTuple_GET_SIZE(PyTuple_GET_ITEM(made, 1)));
            if (value < 0) *result = NULL;
            else if (Py_TYPE(returned) == &ReturnedType) *result = returned_made((Returned *)returned, recorder, value);
            else *result = PyObject_CallFunction(returned, "On", recorder, value);
            outcome = *result == NULL ? ERROR : DONE;
        }
    }
    items_end(&call.operands);
    items_end(&call.attributes);
    Py_DECREF(call.step);
    return outcome;
}

/* The Python method of the same name, for whatever arguments. */
static PyObject *in_python(PyObject *method, PyObject *self, PyObject *const *arguments, Py_ssize_t count,
                           PyObject *names) {
    Py_ssize_t all = count + (names == NULL ? 0 : PyTuple_GET_SIZE(names));
    PyObject *own[16], **given = all < 16 ? own : PyMem_Malloc((all + 1) * sizeof(PyObject *));
    if (given == NULL) return PyErr_NoMemory();
    given[0] = self;
    memcpy(given + 1, arguments, all * sizeof(PyObject *));
    PyObject *result = PyObject_Vectorcall(method, given, count + 1, names);
    if (given != own) PyMem_Free(given);
    return result;
}

/* Recorder.call(site, arguments, caller) */
static PyObject *recorder_call(PyObject *self, PyObject *const *arguments, Py_ssize_t count, PyObject *names) {
    if (names == NULL && count >= 2 && PyTuple_CheckExact(arguments[1])) {
        PyObject *result;
        int outcome = record(self, arguments[0], &PyTuple_GET_ITEM(arguments[1], 0), PyTuple_GET_SIZE(arguments[1]),
                             &result);
        if (outcome != UNUSUAL) return outcome == DONE ? result : NULL;
    }
    return in_python(call_, self, arguments, count, names);
}

/* CellCall.__call__(*arguments, **named) */
static PyObject *cell_called(PyObject *self, PyObject *const *arguments, Py_ssize_t count, PyObject *names) {
    PyObject *recorder = SLOT(self, CellCall_recorder), *site = SLOT(self, CellCall_site), *result;
    if (IS(self, CellCall) && IS(recorder, Recorder) && IS(site, Site) &&
        (names == NULL || !PyTuple_GET_SIZE(names)) && SLOT(recorder, Recorder_finished) == Py_False &&
        SLOT(site, Site_taken_apart) == Py_False && PyTuple_CheckExact(SLOT(site, Site_reads)) &&
        !PyTuple_GET_SIZE(SLOT(site, Site_reads))) {
        PyObject *autocast = PyObject_CallNoArgs(is_any_autocast_);
        if (autocast == NULL) return NULL;
        Py_DECREF(autocast);
        if (autocast == Py_False) {
            int outcome = record(recorder, site, arguments, count, &result);
            if (outcome == ERROR) return NULL;
            if (outcome == DONE) {
                if (!IS(result, Written)) return result;
                PyObject *own = PyObject_CallMethodOneArg(self, str__written, result);
                Py_DECREF(result);
                return own;
            }
        }
    }
    return in_python(cell_call_, self, arguments, count, names);
}

/* Setting up ---------------------------------------------------------------------------------------------------- */

static PyMethodDef method_of_recorder = {"call", (PyCFunction)(void (*)(void))recorder_call,
                                         METH_FASTCALL | METH_KEYWORDS, "Record one call of a cell."};
static PyMethodDef method_of_cell = {"__call__", (PyCFunction)(void (*)(void))cell_called,
                                     METH_FASTCALL | METH_KEYWORDS, "Record one call."};
static PyMethodDef method_of_outside = {"number", outside_number, METH_O,
                                        "The number of a tensor with what is in it now."};

static int find_slot(PyObject *owner, const char *name, Py_ssize_t *place) {
    PyObject *found = PyObject_GetAttrString(owner, name);
    if (found == NULL) return -1;
    PyMemberDescrObject *member = (PyMemberDescrObject *)found;
    int good = Py_TYPE(found) == &PyMemberDescr_Type && member->d_member->type == T_OBJECT_EX &&
               (PyObject *)PyDescr_TYPE(found) == owner;
    *place = good ? member->d_member->offset : 0;
    Py_DECREF(found);
    if (!good) PyErr_Format(PyExc_TypeError, "%s of %R is no slot", name, owner);
    return good ? 0 : -1;
}

static void find_exchange(void) {
    PyObject *capsule = PyObject_GetAttrString(Tensor_, "__dlpack_c_exchange_api__");
    ExchangeHeader *header = capsule == NULL ? NULL : PyCapsule_GetPointer(capsule, "dlpack_exchange_api");
    PyErr_Clear(); /* an earlier PyTorch: Python reads its tensors */
    while (header != NULL && header->version.major > DL_MAJOR) header = header->prev;
    if (header != NULL && header->version.major == DL_MAJOR) tensor_from_object = ((Exchange *)header)->tensor_from_object;
    Py_XDECREF(capsule);
}

/* setup(names): remember the objects of Python that are used here; the methods that replace theirs, by name. */
static PyObject *setup(PyObject *module, PyObject *names) {
    if (!PyDict_Check(names)) return PyErr_Format(PyExc_TypeError, "names in a dict");
#define TAKE(name) \
    Py_XSETREF(name##_, Py_XNewRef(PyDict_GetItemString(names, #name))); \
    if (name##_ == NULL) return PyErr_Format(PyExc_KeyError, #name);
#define TAKE_CLASS(name) \
    TAKE(name) \
    if (!PyType_Check(name##_)) return PyErr_Format(PyExc_TypeError, #name);
#define FIND_SLOT(owner, name) \
    if (find_slot(owner##_, #name, &owner##_##name) < 0) return NULL;
#define MAKE_NAME(name) \
    if (str_##name == NULL && (str_##name = PyUnicode_InternFromString(#name)) == NULL) return NULL;
    CLASSES(TAKE_CLASS)
    OBJECTS(TAKE)
    SLOTS(FIND_SLOT)
    NAMES(MAKE_NAME)
    for (int n = 0; n < 8; n++) Py_XSETREF(number_of_tuple[n], Py_BuildValue("(Oi)", str_tuple, n));
    for (int n = 0; n < 2; n++) Py_XSETREF(few[n], Py_BuildValue("(Oi)", FEW_, n));
    Py_XSETREF(listed_one, Py_BuildValue("(OiO)", str_listed, 1, Py_False));
    if (PyErr_Occurred()) return NULL;
    find_exchange();
    PyObject *call = PyDescr_NewMethod((PyTypeObject *)Recorder_, &method_of_recorder);
    PyObject *cell = PyDescr_NewMethod((PyTypeObject *)CellCall_, &method_of_cell);
    PyObject *number = PyDescr_NewMethod((PyTypeObject *)Outside_, &method_of_outside);
    PyObject *made = call && cell && number ? Py_BuildValue("{sOsOsO}", "call", call, "cell_call", cell, "number", number)
                                            : NULL;
    Py_XDECREF(call);
    Py_XDECREF(cell);
    Py_XDECREF(number);
    return made;
}

static PyMethodDef functions[] = {
    {"setup", setup, METH_O, "Remember the objects of Python; the methods that replace theirs, by name."},
    {"rows_of_values", (PyCFunction)(void (*)(void))rows_of_values, METH_FASTCALL, "See lazy.py."},
    {"minibatch_ended", minibatch_ended, METH_NOARGS, "Let go what tensors of a minibatch held."},
    {"entered", entered, METH_O, "Tensors in this thing have been seen by PyTorch's C++ code."},
    {"returned_of", (PyCFunction)(void (*)(void))returned_of, METH_FASTCALL, "See call_fast_paths.py."},
    {NULL, NULL, 0, NULL},
};
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, .m_name = "edbatch_recording_core", .m_size = -1,
                                        .m_methods = functions};

PyMODINIT_FUNC PyInit_edbatch_recording_core(void) {
    if (PyType_Ready(&ReturnedType) < 0 || PyType_Ready(&SpareType) < 0) return NULL;
    return PyModule_Create(&definition);
}
