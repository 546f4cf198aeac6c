#ifndef EDBATCH_OUTSIDE_H
#define EDBATCH_OUTSIDE_H
#include "state.h"

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

static int (*tensor_from_object)(void *, DLTensor *);

/* Tensors from outside ------------------------------------------------------------------------------------------ */

/* An ordinary tensor in memory. */
static int ordinary_tensor(PyObject *tensor, DLTensor *seen) {
    if (tensor_from_object == NULL) return UNUSUAL;
    if (tensor_from_object(tensor, seen) != 0) {
        PyErr_Clear(); /* sparse, on another device, of torch.func, ...: Python's way says what it is */
        return UNUSUAL;
    }
    int known = seen->device.type == DL_CPU && seen->dtype.lanes == 1 && seen->data != NULL && seen->ndim <= 16;
    return known ? DONE : UNUSUAL;
}

/* One whose numbers lie in memory one after another; `bytes` is how long they are. */
static int plain_tensor(PyObject *tensor, DLTensor *seen, Py_ssize_t *bytes) {
    int outcome = ordinary_tensor(tensor, seen);
    if (outcome != DONE) return outcome;
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

enum { MOST_BYTES = 4096, PLACES = 256 };

/* Tensors that were seen last, by where they lie: to compare bytes takes a fraction of hashing them. */
typedef struct {
    PyObject_HEAD
    struct {
        void *data;
        PyObject *size, *content, *number;
    } places[PLACES];
} Seen;
static PyTypeObject SeenType;

static void seen_dealloc(Seen *self) {
    for (int n = 0; n < PLACES; n++) {
        Py_XDECREF(self->places[n].size);
        Py_XDECREF(self->places[n].content);
        Py_XDECREF(self->places[n].number);
    }
    PyObject_Free(self);
}

static PyTypeObject SeenType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "edbatch_recording_core.Seen",
    .tp_basicsize = sizeof(Seen),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_dealloc = (destructor)seen_dealloc,
};

static Seen *seen_of(PyObject *outside) {
    Seen *seen = (Seen *)SLOT(outside, Outside_seen);
    if (Py_TYPE(seen) == &SeenType) return seen;
    if ((seen = PyObject_New(Seen, &SeenType)) == NULL) return NULL;
    memset(seen->places, 0, sizeof(seen->places));
    set_slot(outside, Outside_seen, (PyObject *)seen);
    return seen;
}

static int is_bytes(PyObject *bytes, void *data, Py_ssize_t count) {
    return PyBytes_GET_SIZE(bytes) == count && !memcmp(PyBytes_AS_STRING(bytes), data, count);
}

/* Whether the numbers of a tensor are of the dtype of the minibatch. */
static int is_number(PyObject *outside, DLTensor *seen) {
    PyObject *bits = SLOT(outside, Outside_bits);
    return seen->dtype.code == DL_FLOAT && PyLong_CheckExact(bits) && PyLong_AsLong(bits) == seen->dtype.bits;
}

/* A number of its own for a tensor of these bytes, of a shape of which there are others: Outside._add(). */
static int new_number(PyObject *outside, PyObject *numbers, PyObject *content, PyObject **number) {
    PyObject *key, *other, *specs = SLOT(outside, Outside_specs), *of_table = SLOT(outside, Outside_table);
    PyObject *of_row = SLOT(outside, Outside_row), *made = NULL;
    Py_ssize_t at = 0, bytes = PyBytes_GET_SIZE(content);
    if (!PyDict_Next(numbers, &at, &key, &other) || !PyLong_CheckExact(other)) return UNUSUAL;
    Py_ssize_t place = -1 - PyLong_AsSsize_t(other);
    if (!PyList_CheckExact(specs) || !PyList_CheckExact(of_table) || !PyList_CheckExact(of_row)) return UNUSUAL;
    if (place < 0 || place >= PyList_GET_SIZE(specs) || place >= PyList_GET_SIZE(of_table)) return UNUSUAL;
    PyObject *which = PyList_GET_ITEM(of_table, place), *spec = PyList_GET_ITEM(specs, place);
    PyObject *tables = PyObject_GetAttr(SLOT(outside, Outside_tables), str__tables), *table;
    if (tables == NULL) return ERROR;
    table = PySequence_GetItem(tables, PyLong_AsSsize_t(which));
    Py_DECREF(tables);
    if (table == NULL) return ERROR;
    int outcome = UNUSUAL;
    if (IS(table, Table)) {
        Py_ssize_t count = PyLong_AsSsize_t(SLOT(table, Table_count));
        char *rows = PyLong_AsVoidPtr(SLOT(table, Table_address));
        if (!PyErr_Occurred() && PyLong_AsSsize_t(SLOT(table, Table_bytes)) == bytes &&
            count < PyLong_AsSsize_t(SLOT(table, Table_capacity))) {
            PyObject *row = PyLong_FromSsize_t(count), *next = PyLong_FromSsize_t(count + 1);
            made = PyLong_FromSsize_t(-1 - PyList_GET_SIZE(specs));
            memcpy(rows + count * bytes, PyBytes_AS_STRING(content), bytes);
            if (row && next && made && PyList_Append(specs, spec) == 0 && PyList_Append(of_table, which) == 0 &&
                PyList_Append(of_row, row) == 0 && PyDict_SetItem(numbers, content, made) == 0) {
                set_slot(table, Table_count, Py_NewRef(next));
                *number = Py_NewRef(made);
                outcome = DONE;
            }
            Py_XDECREF(row);
            Py_XDECREF(next);
            Py_XDECREF(made);
        }
    }
    Py_DECREF(table);
    return PyErr_Occurred() ? ERROR : outcome;
}

/* Outside.number() of such a tensor, by its bytes, if tensors of its shape have been seen; a new reference. */
static int known_number(PyObject *outside, PyObject *tensor, DLTensor *read, Py_ssize_t bytes, PyObject **number) {
    PyObject *by_size = SLOT(outside, Outside_known_by_size);
    if (bytes > MOST_BYTES || !PyDict_CheckExact(by_size)) return UNUSUAL;
    int enabled = grad_is_on();
    if (enabled < 0) return ERROR;
    if (enabled) {
        PyObject *wanted = PyObject_GetAttr(tensor, str_requires_grad);
        if (wanted == NULL) return ERROR;
        Py_DECREF(wanted);
        if (wanted != Py_False) return UNUSUAL;
    }
    Seen *seen = seen_of(outside);
    if (seen == NULL) return ERROR;
    char *data = (char *)read->data + read->byte_offset;
    Py_ssize_t extents = read->ndim * sizeof(int64_t);
    int place = ((uintptr_t)data >> 6 ^ (uintptr_t)data >> 9) % PLACES;
    if (seen->places[place].data == data && is_bytes(seen->places[place].content, data, bytes) &&
        is_bytes(seen->places[place].size, read->shape, extents)) {
        *number = Py_NewRef(seen->places[place].number);
        return DONE;
    }
    PyObject *size = PyBytes_FromStringAndSize((char *)read->shape, extents), *content = NULL;
    PyObject *numbers = size == NULL ? NULL : PyDict_GetItemWithError(by_size, size);
    if (numbers != NULL && (content = PyBytes_FromStringAndSize(data, bytes)) != NULL) {
        *number = Py_XNewRef(PyDict_GetItemWithError(numbers, content));
        int outcome = *number != NULL ? DONE : PyErr_Occurred() ? ERROR : new_number(outside, numbers, content, number);
        if (outcome == DONE) {
            seen->places[place].data = data;
            Py_XSETREF(seen->places[place].size, size);
            Py_XSETREF(seen->places[place].content, content);
            Py_XSETREF(seen->places[place].number, Py_NewRef(*number));
            return DONE;
        }
    }
    Py_XDECREF(size);
    Py_XDECREF(content);
    return PyErr_Occurred() ? ERROR : UNUSUAL;
}

/* Whether a tensor has rows along a dimension, before which others have extent 1, whose numbers lie one after another,
 * or (`repeats`) are one number each, expanded. */
static int lies_in_rows(DLTensor *seen, int at, int *repeats) {
    int64_t elements = 1;
    int plain = 1, zero = 1;
    for (int n = 0; n < at; n++)
        if (seen->shape[n] != 1) return 0;
    for (int n = seen->ndim - 1; n > at; n--) {
        int64_t stride = seen->strides == NULL ? elements : seen->strides[n];
        plain = plain && (seen->shape[n] == 1 || stride == elements);
        zero = zero && (seen->shape[n] == 1 || stride == 0);
        elements *= seen->shape[n];
    }
    *repeats = !plain && zero;
    return elements > 0 && (plain || zero);
}

/* Outside.numbers() of the rows along dimension `at` of an ordinary tensor, each by its bytes; a new list. */
static int known_rows(PyObject *outside, PyObject *tensor, DLTensor *read, int at, PyObject **values) {
    int64_t extents[17];
    PyObject *by_size = SLOT(outside, Outside_known_by_size);
    int repeats, outcome = UNUSUAL, enabled = grad_is_on();
    if (enabled < 0) return ERROR;
    if (!PyDict_CheckExact(by_size) || at >= read->ndim || !lies_in_rows(read, at, &repeats)) return UNUSUAL;
    PyObject *negative = PyObject_CallOneArg(is_neg_, tensor);
    PyObject *wanted = negative != NULL && enabled ? PyObject_GetAttr(tensor, str_requires_grad) : NULL;
    Py_XDECREF(negative);
    Py_XDECREF(wanted);
    if (PyErr_Occurred()) return ERROR;
    if (negative != Py_False || (enabled && wanted != Py_False)) return UNUSUAL;
    Py_ssize_t item = read->dtype.bits / 8, row = item, step, count = read->shape[at];
    for (int n = 0; n < read->ndim; n++) {
        extents[n] = n == at ? 1 : read->shape[n];
        row *= repeats ? 1 : extents[n];
    }
    step = read->strides == NULL ? row : read->strides[at] * item;
    extents[read->ndim] = 0; /* see Outside.known_by_size */
    if (row > MOST_BYTES) return UNUSUAL;
    PyObject *size = PyBytes_FromStringAndSize((char *)extents, (read->ndim + repeats) * sizeof(int64_t));
    PyObject *numbers = size == NULL ? NULL : PyDict_GetItemWithError(by_size, size);
    Py_XDECREF(size);
    if (numbers == NULL) return PyErr_Occurred() ? ERROR : UNUSUAL; /* the first rows of this shape */
    PyObject *made = PyList_New(count);
    const char *data = (const char *)read->data + read->byte_offset;
    for (Py_ssize_t n = 0; n < count && made != NULL; n++) {
        PyObject *content = PyBytes_FromStringAndSize(data + n * step, row), *number = NULL;
        if (content != NULL) number = Py_XNewRef(PyDict_GetItemWithError(numbers, content));
        if (number == NULL && content != NULL && !repeats && !PyErr_Occurred())
            outcome = new_number(outside, numbers, content, &number);
        Py_XDECREF(content);
        if (number != NULL) PyList_SET_ITEM(made, n, number);
        else Py_CLEAR(made);
    }
    *values = made;
    return made != NULL ? DONE : PyErr_Occurred() ? ERROR : outcome == DONE ? UNUSUAL : outcome;
}

static PyObject *outside_number(PyObject *self, PyObject *tensor) {
    DLTensor seen;
    Py_ssize_t bytes;
    PyObject *number;
    if (IS(self, Outside) && IS(tensor, Tensor)) {
        int outcome = plain_tensor(tensor, &seen, &bytes);
        if (outcome == DONE && is_number(self, &seen))
            outcome = known_number(self, tensor, &seen, bytes, &number);
        else if (outcome == DONE)
            outcome = UNUSUAL;
        if (outcome == DONE) return number;
        if (outcome == ERROR) return NULL;
    }
    PyObject *arguments[] = {self, tensor};
    return PyObject_Vectorcall(number_, arguments, 2, NULL);
}
#endif
