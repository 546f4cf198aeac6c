#ifndef EDBATCH_DEFERRED_H
#define EDBATCH_DEFERRED_H
#include "outside.h"
#include "views.h"

/* Operators on rows that are recorded later -----------------------------------------------------------------------------
 *
 * An operator between cells is a node for each row, and of `(a * b + c * d) * m` all but the last are rows that nobody
 * else reads. So the call of an operator that works element by element only notes what it reads (a Deferred). It is
 * recorded when its rows are wanted, together with the calls behind those of its operands that nothing else holds by
 * then: one node a row, of a cell that computes them all (fused_rows.py).
 *
 * A Deferred has the values that were there when the operator was called. So it makes no difference when it is recorded,
 * or whether alone, with one that reads it, or both. It is recorded before another element goes on and before anything is
 * computed (settle()), so that nodes belong to the element that made them.
 */

enum { MOST_COLUMNS = 16, MOST_LEAVES = 32, MOST_FUSED = 12, SEEN = 6, LATELY = 16, LATELY_IN_ELEMENT = 256 };

typedef struct Deferred {
    PyObject_HEAD
    struct Deferred *before, *after; /* among all that are not recorded, in the order of their calls */
    PyObject *recorder, *how, *rows; /* a RowByRow; a list once they are recorded */
    PyObject **leaves; /* of each tensor among the arguments: a list of values, a Deferred, or one value for all rows */
    Py_ssize_t count, readers; /* rows; how many others have it as a leaf */
    int width, calls, reads; /* leaves; with the calls that may be recorded with it, and what these read */
} Deferred;
static PyTypeObject DeferredType;
static Deferred unrecorded = {.before = &unrecorded, .after = &unrecorded};

static int is_deferred(PyObject *rows) { return Py_TYPE(rows) == &DeferredType; }

/* What was deferred is recorded, or wanted no more. */
static void deferred_forget(Deferred *self) {
    if (self->before != NULL) {
        self->before->after = self->after;
        self->after->before = self->before;
        self->before = self->after = NULL;
    }
    PyObject **leaves = self->leaves;
    int width = self->width;
    self->leaves = NULL;
    self->width = 0;
    for (int n = 0; n < width; n++) {
        if (is_deferred(leaves[n])) ((Deferred *)leaves[n])->readers--;
        Py_DECREF(leaves[n]);
    }
    PyMem_Free(leaves);
    Py_CLEAR(self->how);
}

static int deferred_clear(Deferred *self) {
    deferred_forget(self);
    Py_CLEAR(self->recorder);
    Py_CLEAR(self->rows);
    return 0;
}

static int deferred_traverse(Deferred *self, visitproc visit, void *arg) {
    for (int n = 0; n < self->width; n++) Py_VISIT(self->leaves[n]);
    Py_VISIT(self->recorder);
    Py_VISIT(self->how);
    Py_VISIT(self->rows);
    return 0;
}

static void deferred_dealloc(Deferred *self) {
    PyObject_GC_UnTrack(self);
    deferred_clear(self);
    PyObject_GC_Del(self);
}

/* Whether a recorder keeps its calls as append() takes them to be. */
static int lists_of_recorder(PyObject *recorder) {
    return PyList_CheckExact(SLOT(recorder, Recorder_types)) && PyList_CheckExact(SLOT(recorder, Recorder_ends)) &&
           PyList_CheckExact(SLOT(recorder, Recorder_operands)) && PyLong_CheckExact(SLOT(recorder, Recorder_recorded));
}

/* Append nodes of one type, whose operands are lists of values or one value for all; the number of their first
 * value. */
static Py_ssize_t append_rows(PyObject *recorder, PyObject *type_id, PyObject **given, int width, Py_ssize_t count,
                              Py_ssize_t outputs) {
    PyObject *types = SLOT(recorder, Recorder_types), *ends = SLOT(recorder, Recorder_ends);
    PyObject *operands = SLOT(recorder, Recorder_operands);
    for (Py_ssize_t n = 0; n < count; n++) {
        if (PyList_Append(types, type_id) < 0) return -1;
        for (int k = 0; k < width; k++) {
            PyObject *one = PyList_CheckExact(given[k]) ? PyList_GET_ITEM(given[k], n) : given[k];
            if (PyList_Append(operands, one) < 0) return -1;
        }
        PyObject *end = PyLong_FromSsize_t(PyList_GET_SIZE(operands));
        int failed = end == NULL || PyList_Append(ends, end) < 0;
        Py_XDECREF(end);
        if (failed) return -1;
    }
    Py_ssize_t value = PyLong_AsSsize_t(SLOT(recorder, Recorder_recorded));
    PyObject *next = PyLong_FromSsize_t(value + outputs * count);
    if (next == NULL) return -1;
    set_slot(recorder, Recorder_recorded, next);
    return value;
}

/* Record nodes of a type, one for each row: operand n of all is the leaf that `order` says. */
static int record_rows(Deferred *self, PyObject *type_id, PyObject *order, PyObject **leaves, int width) {
    PyObject *given[MOST_COLUMNS];
    Py_ssize_t used = PyTuple_GET_SIZE(order);
    if (used > MOST_COLUMNS || !lists_of_recorder(self->recorder)) {
        PyErr_SetString(PyExc_SystemError, "operands of rows that were not expected");
        return ERROR;
    }
    for (Py_ssize_t n = 0; n < used; n++) {
        Py_ssize_t place = PyLong_AsSsize_t(PyTuple_GET_ITEM(order, n));
        if (place < 0 || place >= width) {
            if (!PyErr_Occurred()) PyErr_SetString(PyExc_SystemError, "an operand of rows that are not there");
            return ERROR;
        }
        given[n] = is_deferred(leaves[place]) ? ((Deferred *)leaves[place])->rows : leaves[place];
    }
    PyObject *rows = PyList_New(self->count);
    Py_ssize_t value = rows == NULL ? -1 : append_rows(self->recorder, type_id, given, (int)used, self->count, 1);
    for (Py_ssize_t n = 0; n < self->count && value >= 0; n++) {
        PyObject *number = PyLong_FromSsize_t(value + n);
        if (number == NULL) value = -1;
        else PyList_SET_ITEM(rows, n, number);
    }
    if (value < 0) {
        Py_XDECREF(rows);
        return ERROR;
    }
    self->rows = rows;
    deferred_forget(self);
    return DONE;
}

/* Record a call by itself, after those that it reads. */
static int record_alone(Deferred *self) {
    if (self->rows != NULL) return DONE;
    for (int n = 0; n < self->width; n++)
        if (is_deferred(self->leaves[n]) && record_alone((Deferred *)self->leaves[n]) != DONE) return ERROR;
    PyObject *how = Py_NewRef(self->how);
    PyObject *type_id = PyTuple_GET_ITEM(SLOT(how, RowByRow_node), 0);
    int outcome = record_rows(self, type_id, SLOT(how, RowByRow_order), self->leaves, self->width);
    Py_DECREF(how);
    return outcome;
}

static int record_deferred(Deferred *self);

/* Record the calls that `self` reads and something else does, too. */
static int record_shared(Deferred *self) {
    for (int n = 0; n < self->width; n++) {
        Deferred *leaf = (Deferred *)self->leaves[n];
        if (!is_deferred((PyObject *)leaf) || leaf->rows != NULL) continue;
        if ((Py_REFCNT(leaf) > 1 ? record_deferred(leaf) : record_shared(leaf)) != DONE) return ERROR;
    }
    return DONE;
}

/* Calls that are recorded together: their operations, each followed by what it reads (None for values), and these. */
typedef struct {
    PyObject *program[MOST_FUSED + MOST_COLUMNS], *operands[MOST_COLUMNS]; /* borrowed */
    int length, width, calls;
} Fused;

static void fuse(Deferred *self, Fused *all) {
    all->calls++;
    all->program[all->length++] = SLOT(self->how, RowByRow_operation);
    for (int n = 0; n < self->width; n++) {
        PyObject *leaf = self->leaves[n];
        if (is_deferred(leaf) && ((Deferred *)leaf)->rows == NULL) {
            fuse((Deferred *)leaf, all);
            continue;
        }
        all->program[all->length++] = Py_None;
        all->operands[all->width++] = leaf;
    }
}

/* The type of the node for such calls and the places of its operands, a new reference; None: they are recorded alone. */
static PyObject *fused_node(PyObject *recorder, Fused *all) {
    PyObject *known = SLOT(recorder, Recorder_fused), *key = PyTuple_New(all->length), *found;
    if (key == NULL) return NULL;
    for (int n = 0; n < all->length; n++) PyTuple_SET_ITEM(key, n, Py_NewRef(all->program[n]));
    if (!PyDict_CheckExact(known)) found = Py_NewRef(Py_None);
    else if (((found = PyDict_GetItemWithError(known, key)) == NULL && !PyErr_Occurred()) ||
             (found != NULL && PyLong_CheckExact(found))) {
        /* Where some of the operators are new, others come together that seldom do. */
        Py_ssize_t times = found == NULL ? 1 : PyLong_AsSsize_t(found) + 1;
        PyObject *arguments[] = {recorder, key}, *met = times < SEEN ? PyLong_FromSsize_t(times) : NULL;
        if (times >= SEEN) found = PyObject_Vectorcall(fused_node_, arguments, 2, NULL);
        else found = met != NULL && PyDict_SetItem(known, key, met) == 0 ? Py_NewRef(Py_None) : NULL;
        Py_XDECREF(met);
    } else
        Py_XINCREF(found);
    Py_DECREF(key);
    return found;
}

/* The last tensors that nobody holds any more hold no rows. */
static void let_go(Py_ssize_t lately) {
    Py_ssize_t first = young.count > lately ? young.count - lately : 0;
    for (Py_ssize_t n = young.count; n-- > first;) {
        if (n >= young.count) continue; /* what is freed may run code that changes them */
        PyObject *tensor = young.items[n];
        if (Py_REFCNT(tensor) != 1 || !IS(tensor, LazyTensor)) continue;
        PyObject *own = own_of(tensor), *held = own == NULL ? NULL : PyDict_GetItem(own, str_held);
        if (held != NULL && IS(held, Storage) && is_deferred(SLOT(held, Storage__rows))) spare_for(tensor);
    }
    PyErr_Clear();
}

/* Record a call, together with those before it that nothing else reads. */
static int record_deferred(Deferred *self) {
    if (self->rows != NULL) return DONE;
    let_go(LATELY);
    Py_INCREF(self);
    int outcome = record_shared(self);
    if (outcome == DONE && self->rows == NULL) {
        Fused all = {.length = 0, .width = 0, .calls = 0};
        fuse(self, &all);
        PyObject *node = all.calls > 1 ? fused_node(self->recorder, &all) : Py_NewRef(Py_None);
        if (node == NULL) outcome = ERROR;
        else if (PyTuple_CheckExact(node) && PyTuple_GET_SIZE(node) == 2 && PyTuple_CheckExact(PyTuple_GET_ITEM(node, 1)))
            outcome = record_rows(self, PyTuple_GET_ITEM(node, 0), PyTuple_GET_ITEM(node, 1), all.operands, all.width);
        else
            outcome = record_alone(self);
        Py_XDECREF(node);
    }
    Py_DECREF(self);
    return outcome;
}

static PyObject *rows_in_storage(PyObject *held) {
    PyObject *rows = SLOT(held, Storage__rows);
    if (!is_deferred(rows)) return rows;
    Deferred *deferred = (Deferred *)Py_NewRef(rows);
    rows = NULL;
    if (record_deferred(deferred) == DONE) /* the storage may be written into, and others read these rows */
        rows = deferred->readers ? PyList_GetSlice(deferred->rows, 0, deferred->count) : Py_NewRef(deferred->rows);
    Py_DECREF(deferred);
    if (rows != NULL) set_slot(held, Storage__rows, rows);
    return rows;
}

/* Deferred.recorded(): the values of its rows, a new list. */
static PyObject *deferred_recorded(Deferred *self, PyObject *unused) {
    return record_deferred(self) == DONE ? PyList_GetSlice(self->rows, 0, self->count) : NULL;
}

/* Recorder.settle(): everything that it is to record later and that something holds is recorded. */
static PyObject *recorder_settle(PyObject *self, PyObject *unused) {
    if (unrecorded.after == &unrecorded) Py_RETURN_NONE;
    let_go(LATELY_IN_ELEMENT);
    for (Deferred *one = unrecorded.after; one != &unrecorded;) {
        if (one->recorder != self || Py_REFCNT(one) == one->readers) { /* it may be recorded with those that read it */
            one = one->after;
            continue;
        }
        Py_INCREF(one);
        int outcome = record_deferred(one);
        Py_DECREF(one);
        if (outcome != DONE) return NULL;
        one = unrecorded.after; /* others may have been recorded with it */
    }
    Py_RETURN_NONE;
}

static PyMethodDef methods_of_deferred[] = {
    {"recorded", (PyCFunction)deferred_recorded, METH_NOARGS, "The values of its rows, a new list."},
    {NULL, NULL, 0, NULL},
};
static PyTypeObject DeferredType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "edbatch_recording_core.Deferred",
    .tp_basicsize = sizeof(Deferred),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_traverse = (traverseproc)deferred_traverse,
    .tp_clear = (inquiry)deferred_clear,
    .tp_dealloc = (destructor)deferred_dealloc,
    .tp_methods = methods_of_deferred,
};

/* Whether calls of this kind may be recorded later: not where gradients are, and not where each is computed at once. */
static int may_defer(PyObject *recorder, PyObject *how) {
    return PyTuple_CheckExact(SLOT(how, RowByRow_order)) && SLOT(recorder, Recorder_tape) == Py_None &&
           SLOT(recorder, Recorder_at_once) == Py_False && SLOT(recorder, Recorder_finished) == Py_False;
}

/* A call that is to be recorded; takes the leaves. */
static Deferred *new_deferred(PyObject *recorder, PyObject *how, PyObject **leaves, int width, Py_ssize_t count) {
    Deferred *made = PyObject_GC_New(Deferred, &DeferredType);
    PyObject **own = made == NULL ? NULL : PyMem_Malloc(width * sizeof(PyObject *));
    if (own == NULL) {
        if (made != NULL) PyObject_GC_Del(made);
        for (int n = 0; n < width; n++) Py_DECREF(leaves[n]);
        PyErr_NoMemory();
        return NULL;
    }
    memcpy(own, leaves, width * sizeof(PyObject *));
    *made = (Deferred){.ob_base = made->ob_base, .recorder = Py_NewRef(recorder), .how = Py_NewRef(how), .leaves = own,
                       .count = count, .width = width};
    for (int n = 0; n < width; n++)
        if (is_deferred(own[n])) ((Deferred *)own[n])->readers++;
    made->after = &unrecorded;
    made->before = unrecorded.before;
    made->before->after = made->after->before = made;
    PyObject_GC_Track(made);
    for (int again = 0; again < 2; again++) {
        made->calls = 1;
        made->reads = 0;
        for (int n = 0; n < width; n++) {
            Deferred *leaf = (Deferred *)own[n];
            int later = is_deferred(own[n]) && leaf->rows == NULL;
            made->calls += later ? leaf->calls : 0;
            made->reads += later ? leaf->reads : 1;
        }
        if (made->calls <= MOST_FUSED && made->reads <= MOST_COLUMNS) break;
        for (int n = 0; n < width; n++) /* too much for one cell */
            if (is_deferred(own[n]) && record_deferred((Deferred *)own[n]) != DONE) {
                Py_DECREF(made);
                return NULL;
            }
    }
    return made;
}

#endif
