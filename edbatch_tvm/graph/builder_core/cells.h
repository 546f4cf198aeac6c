/* What is known of the cells of a signature, and the objects of Python that the builder needs. */
#ifndef EDBATCH_CELLS_H
#define EDBATCH_CELLS_H
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>
#if PY_VERSION_HEX < 0x030B0000
#include <longintrepr.h>
#endif

static PyTypeObject *Value_, *InstanceGraph_, *Integer_; /* the classes Value, InstanceGraph and numpy.integer */

#define LOCAL_BITS 32
#define ZERO (-1) /* the zero state as a value of a graph, ... */
#define ZERO_VALUE ((INT64_C(1) << LOCAL_BITS) + 0xffffffff) /* ... and as builders give it out */

/* How the rows of an attribute are kept while calls are recorded. */
enum { OBJECTS, INTEGERS, FLOATS, BOOLEANS };

typedef struct {
    PyObject *name;
    char kind;          /* of the dtype: b(oolean), i, u, f */
    int kept;           /* one of the above */
    Py_ssize_t size;    /* bytes of an element */
    Py_ssize_t elements; /* of a row */
    int64_t bound;      /* elements are below it; -1: no bound */
} Column;

typedef struct {
    PyObject *name, *seen; /* seen: the string that the last call named it by */
    int operands, fixed, variadics, outputs, columns, first_column;
    unsigned char *variadic; /* of each operand */
    int32_t *arena;          /* of each operand */
} Cell;

typedef struct {
    PyObject_HEAD
    int cells, columns, stride;
    Cell *cell;
    Column *column;
    int32_t *output_arena; /* cells x stride; -1: there is no such output */
    PyObject *numbers;     /* a dict: the number of a cell by its name */
    PyObject *names;       /* bytes: how the tuple of all names is printed, which digests begin with */
} Cells;

static void cells_dealloc(Cells *self) {
    for (int t = 0; self->cell != NULL && t < self->cells; t++) {
        Py_XDECREF(self->cell[t].name);
        Py_XDECREF(self->cell[t].seen);
        PyMem_Free(self->cell[t].variadic);
        PyMem_Free(self->cell[t].arena);
    }
    for (int n = 0; self->column != NULL && n < self->columns; n++) Py_XDECREF(self->column[n].name);
    PyMem_Free(self->cell);
    PyMem_Free(self->column);
    PyMem_Free(self->output_arena);
    Py_XDECREF(self->numbers);
    Py_XDECREF(self->names);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyTypeObject CellsType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "edbatch_builder_core.Cells",
    .tp_basicsize = sizeof(Cells),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_dealloc = (destructor)cells_dealloc,
    .tp_doc = "The cells of a signature.",
};

static int fill_cell(Cells *self, Cell *cell, PyObject *given) {
    PyObject *name, *outputs, *operands, *attributes;
    if (!PyArg_ParseTuple(given, "UO!O!O!", &name, &PyTuple_Type, &outputs, &PyTuple_Type, &operands, &PyTuple_Type,
                          &attributes))
        return -1;
    cell->name = Py_NewRef(name);
    cell->outputs = (int)PyTuple_GET_SIZE(outputs);
    cell->operands = (int)PyTuple_GET_SIZE(operands);
    cell->columns = (int)PyTuple_GET_SIZE(attributes);
    cell->first_column = self->columns;
    for (int slot = 0; slot < cell->outputs && slot < self->stride; slot++)
        self->output_arena[(cell - self->cell) * self->stride + slot] =
            (int32_t)PyLong_AsLong(PyTuple_GET_ITEM(outputs, slot));
    cell->variadic = PyMem_Calloc(cell->operands + 1, 1);
    cell->arena = PyMem_Calloc(cell->operands + 1, sizeof(int32_t));
    Column *columns = PyMem_Realloc(self->column, (self->columns + cell->columns + 1) * sizeof(Column));
    if (cell->variadic == NULL || cell->arena == NULL || columns == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    self->column = columns;
    for (int n = 0; n < cell->operands; n++) {
        int arena, variadic;
        if (!PyArg_ParseTuple(PyTuple_GET_ITEM(operands, n), "ip", &arena, &variadic)) return -1;
        cell->arena[n] = arena;
        cell->variadic[n] = (unsigned char)variadic;
        cell->variadics += variadic;
    }
    cell->fixed = cell->operands - cell->variadics;
    for (int n = 0; n < cell->columns; n++) {
        Column *column = &self->column[self->columns];
        PyObject *attribute = PyTuple_GET_ITEM(attributes, n), *called;
        int kind, scalar;
        long long bound;
        if (!PyArg_ParseTuple(attribute, "UinnpL", &called, &kind, &column->size, &column->elements, &scalar, &bound))
            return -1;
        column->name = Py_NewRef(called);
        column->kind = (char)kind;
        column->bound = bound;
        column->kept = !scalar                                               ? OBJECTS
                       : kind == 'b'                                         ? BOOLEANS
                       : kind == 'i' || kind == 'u'                          ? INTEGERS
                       : kind == 'f' && (column->size == 4 || column->size == 8) ? FLOATS
                                                                                 : OBJECTS;
        self->columns++;
    }
    return PyErr_Occurred() ? -1 : 0;
}

/* cells(stride, names, ((name, arenas of outputs, (arena, is variadic) of operands, attributes), ...)); an attribute is
 * (name, kind of dtype, bytes of an element, elements of a row, is a scalar, bound or -1). */
static PyObject *new_cells(PyObject *module, PyObject *arguments) {
    int stride;
    PyObject *names, *every;
    if (!PyArg_ParseTuple(arguments, "iO!O!", &stride, &PyBytes_Type, &names, &PyTuple_Type, &every)) return NULL;
    Cells *self = (Cells *)CellsType.tp_alloc(&CellsType, 0);
    if (self == NULL) return NULL;
    self->cells = (int)PyTuple_GET_SIZE(every);
    self->stride = stride;
    self->names = Py_NewRef(names);
    self->numbers = PyDict_New();
    self->cell = PyMem_Calloc(self->cells + 1, sizeof(Cell));
    self->output_arena = PyMem_Malloc((self->cells * stride + 1) * sizeof(int32_t));
    if (self->numbers == NULL || self->cell == NULL || self->output_arena == NULL) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    for (int n = 0; n < self->cells * stride; n++) self->output_arena[n] = -1;
    for (int t = 0; t < self->cells; t++) {
        PyObject *number = PyLong_FromLong(t);
        int bad = number == NULL || fill_cell(self, &self->cell[t], PyTuple_GET_ITEM(every, t)) < 0 ||
                  PyDict_SetItem(self->numbers, self->cell[t].name, number) < 0;
        Py_XDECREF(number);
        if (bad) {
            Py_DECREF(self);
            return NULL;
        }
    }
    return (PyObject *)self;
}

/* The number of a cell; -1: no cell has this name. Never an error. */
static int find_cell(Cells *self, PyObject *name) {
    int few = self->cells < 16 ? self->cells : 16;
    for (int t = 0; t < few; t++)
        if (self->cell[t].seen == name) return t;
    if (!PyUnicode_CheckExact(name)) return -1; /* Python's way knows classes derived from str */
    PyObject *number = PyDict_GetItem(self->numbers, name);
    if (number == NULL) return -1;
    int found = (int)PyLong_AsLong(number);
    Py_XSETREF(self->cell[found].seen, Py_NewRef(name));
    return found;
}

/* An instance of Value, an int that has one base class and no slots: made as Python's own code makes an int. */
static inline PyObject *new_value(int64_t number) {
    uint64_t rest = (uint64_t)number; /* values are positive */
    Py_ssize_t digits = 0;
    for (uint64_t left = rest; left; left >>= PyLong_SHIFT) digits++;
    PyLongObject *made = (PyLongObject *)Value_->tp_alloc(Value_, digits);
    if (made == NULL) return NULL;
#if PY_VERSION_HEX >= 0x030C0000
    made->long_value.lv_tag = (uintptr_t)digits << 3;
    digit *into = made->long_value.ob_digit;
#else
    digit *into = made->ob_digit;
#endif
    for (Py_ssize_t n = 0; n < digits; n++, rest >>= PyLong_SHIFT) into[n] = (digit)(rest & PyLong_MASK);
    return (PyObject *)made;
}

#endif
