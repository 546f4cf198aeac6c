#ifndef EDBATCH_TENSORS_H
#define EDBATCH_TENSORS_H
#include "state.h"

/* Tensors that stand for values, and spare ones ------------------------------------------------------------------
 *
 * PyTorch takes a microsecond to make a tensor, and a minibatch thousands of them. So tensors that nobody holds any
 * more are used again, for values of the same spec. This file holds all that it makes, and now and then looks which of
 * them it holds alone. Of these, it takes those that are as they were made: no attribute set, no view made of them, never
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

static PyObject *spare_views; /* by where views lie in their storage: those of float32 */
enum { MOST_SPARE_VIEWS = 4096 };

static Tensors young, old; /* made since the last minibatch ended, and in the one before */
static Py_ssize_t look_at = 1024, spare_count;
enum { MOST_SPARE = 32768, FIRST_LOOK = 1024, RECENT = 8 };

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
    PyObject *own = own_of(tensor), *spec, *mark;
    Tensors *found = NULL;
    if (own != NULL && PyDict_CheckExact(own) && (mark = PyDict_GetItem(own, str_OWN)) != NULL &&
        PyLong_CheckExact(mark) && PyLong_AsVoidPtr(mark) == (void *)tensor &&
        (spec = PyDict_GetItem(own, str_spec)) != NULL && IS(spec, TensorSpec)) {
        Spare *spare = (Spare *)SLOT(spec, TensorSpec_spare);
        PyObject *held = PyDict_GetItem(own, str_held);
        int value = PyDict_GET_SIZE(own) == 4 && held == NULL && PyDict_GetItem(own, str_value) != NULL;
        PyObject *geometry = PyDict_GetItem(own, str_geometry);
        int placed = PyDict_GET_SIZE(own) == 5 && held != NULL && geometry != NULL;
        if (placed && geometry != SLOT(spec, TensorSpec_geometry)) /* a view */
            spare = (Spare *)(spare_views == NULL ? NULL : PyDict_GetItem(spare_views, geometry));
        if (spare != NULL && Py_TYPE(spare) == &SpareType && (value || placed) && spare_count < MOST_SPARE &&
            PyDict_SetItem(own, str_recorder, Py_None) == 0 &&
            (value || PyDict_SetItem(own, str_held, Py_None) == 0))
            found = value ? &spare->values : &spare->rows;
    }
    PyErr_Clear();
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
    if (IS(thing, LazyTensor)) return set_part(thing, str_entered, Py_True);
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

/* Let C++ code that asks for the memory of a new tensor raise an error: it has none. */
static int guarded(PyObject *made) {
    PyObject *done = PyObject_CallOneArg(guard_, made);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

static PyObject *made_tensor(PyObject *recorder, PyObject *spec) {
    PyObject *arguments[] = {LazyTensor_, SLOT(spec, TensorSpec_shape), Py_None, Py_None, Py_None,
                             SLOT(spec, TensorSpec_dtype)};
    PyObject *made = PyObject_Vectorcall(wrapper_, arguments, 6, NULL);
    if (made == NULL) return NULL;
    if (guarded(made) < 0 || set_part(made, str_recorder, recorder) < 0 || set_part(made, str_spec, spec) < 0)
        Py_CLEAR(made);
    return made;
}

/* What is spare for tensors of this spec, or for views that lie there. */
static Spare *spare_of(PyObject *spec, PyObject *geometry) {
    Spare *spare;
    if (geometry == NULL) spare = (Spare *)SLOT(spec, TensorSpec_spare);
    else {
        if (spare_views == NULL && (spare_views = PyDict_New()) == NULL) return NULL;
        spare = (Spare *)PyDict_GetItemWithError(spare_views, geometry);
        if (spare == NULL && (PyErr_Occurred() || PyDict_GET_SIZE(spare_views) >= MOST_SPARE_VIEWS)) return NULL;
    }
    if (spare != NULL && Py_TYPE(spare) == &SpareType) return spare;
    if ((spare = PyObject_New(Spare, &SpareType)) == NULL) return NULL;
    spare->values = spare->rows = (Tensors){NULL, 0, 0};
    if (geometry == NULL) {
        set_slot(spec, TensorSpec_spare, (PyObject *)spare);
        return spare;
    }
    int failed = PyDict_SetItem(spare_views, geometry, (PyObject *)spare) < 0;
    Py_DECREF(spare); /* the dict holds it */
    return failed ? NULL : spare;
}

static PyObject *made_view(PyObject *recorder, PyObject *spec, PyObject *geometry) {
    PyObject *arguments[] = {LazyTensor_, PyTuple_GET_ITEM(geometry, 0), PyTuple_GET_ITEM(geometry, 1),
                             PyTuple_GET_ITEM(geometry, 2), Py_None, SLOT(spec, TensorSpec_dtype)};
    PyObject *made = PyObject_Vectorcall(wrapper_, arguments, 6, NULL);
    if (made != NULL && (guarded(made) < 0 || set_part(made, str_recorder, recorder) < 0 ||
                         set_part(made, str_spec, spec) < 0))
        Py_CLEAR(made);
    return made;
}

/* One of the last few tensors that nobody holds any more: it is still in the cache, and among `young`. */
static PyObject *just_let_go(Tensors *wanted) {
    Py_ssize_t first = young.count > RECENT ? young.count - RECENT : 0;
    for (Py_ssize_t n = young.count; n-- > first;) {
        PyObject *tensor = young.items[n];
        if (Py_REFCNT(tensor) == 1 && spare_for(tensor) == wanted) return Py_NewRef(tensor);
    }
    return NULL;
}

/* A tensor of this spec, a spare one or a new one; its other attributes are still to be set. A view has a geometry. */
static PyObject *new_tensor(PyObject *recorder, PyObject *spec, int rows, PyObject *geometry) {
    int inference = in_inference();
    if (inference < 0) return NULL;
    Spare *spare = NULL;
    if (!inference) { /* PyTorch tells those of inference mode from others */
        spare = spare_of(spec, geometry);
        if (spare == NULL && PyErr_Occurred()) return NULL;
    }
    if (spare == NULL) return geometry == NULL ? made_tensor(recorder, spec) : made_view(recorder, spec, geometry);
    Tensors *tensors = rows ? &spare->rows : &spare->values;
    PyObject *made = rows ? just_let_go(tensors) : NULL; /* rows are often joined for one call */
    if (made != NULL) {
        if (set_part(made, str_recorder, recorder) < 0) Py_CLEAR(made);
        return made;
    }
    if (!tensors->count && young.count >= look_at) {
        look_through(&young, &young);
        look_at = young.count * 2 > FIRST_LOOK ? young.count * 2 : FIRST_LOOK;
    }
    if (tensors->count) {
        made = tensors->items[--tensors->count];
        spare_count--;
        if (set_part(made, str_recorder, recorder) < 0) Py_CLEAR(made);
    } else {
        made = geometry == NULL ? made_tensor(recorder, spec) : made_view(recorder, spec, geometry);
        PyObject *mark = made == NULL ? NULL : PyLong_FromVoidPtr(made);
        if (made != NULL && (mark == NULL || set_part(made, str_OWN, mark) < 0)) Py_CLEAR(made);
        Py_XDECREF(mark);
    }
    if (made != NULL) tensors_add(&young, Py_NewRef(made));
    return made;
}

/* lazy_value() in lazy.py. */
static PyObject *value_tensor(PyObject *recorder, Py_ssize_t value, PyObject *spec) {
    PyObject *number = PyLong_FromSsize_t(value);
    if (number == NULL) return NULL;
    PyObject *made = new_tensor(recorder, spec, 0, NULL);
    if (made != NULL && set_part(made, str_value, number) < 0) Py_CLEAR(made);
    Py_DECREF(number);
    return made;
}

/* lazy_rows() in lazy.py, given the spec of the rows; takes the list, or what `many` rows are recorded from later. */
static PyObject *many_rows_tensor(PyObject *recorder, PyObject *values, Py_ssize_t many, PyObject *rows) {
    PyObject *made = NULL, *spec = NULL, *held = NULL, *count = PyLong_FromSsize_t(many), *row;
    if (count == NULL) goto done;
    row = IS(rows, RowsSpec) ? SLOT(rows, RowsSpec_row) : Py_None;
    if (!IS(row, TensorSpec) || !PyDict_CheckExact(SLOT(rows, RowsSpec_stacked))) {
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
    set_slot(held, Storage__rows, Py_NewRef(values));
    set_slot(held, Storage_row, Py_NewRef(SLOT(row, TensorSpec_size)));
    set_slot(held, Storage_listed, Py_NewRef(Py_True));
    set_slot(held, Storage_whole, Py_NewRef(SLOT(spec, TensorSpec_geometry)));
    set_slot(held, Storage_spec, Py_NewRef(rows));
    made = new_tensor(recorder, spec, 1, NULL);
    if (made != NULL && (set_part(made, str_held, held) < 0 ||
                         set_part(made, str_geometry, SLOT(spec, TensorSpec_geometry)) < 0))
        Py_CLEAR(made);
done:
    Py_DECREF(values);
    Py_XDECREF(count);
    Py_XDECREF(spec);
    Py_XDECREF(held);
    return made;
}

static PyObject *rows_tensor_of(PyObject *recorder, PyObject *values, PyObject *rows) {
    return many_rows_tensor(recorder, values, PyList_GET_SIZE(values), rows);
}

/* The same of rows of this spec, stacked along the first dimension. */
static PyObject *rows_tensor(PyObject *recorder, PyObject *values, PyObject *row) {
    PyObject *rows = SLOT(row, TensorSpec_rows);
    if (IS(rows, RowsSpec)) return rows_tensor_of(recorder, values, rows);
    if ((rows = PyObject_CallOneArg(rows_of_, row)) == NULL) {
        Py_DECREF(values);
        return NULL;
    }
    PyObject *made = rows_tensor_of(recorder, values, rows);
    Py_DECREF(rows);
    return made;
}

/* A recorded tensor of `recorder`: its memory (or None) and spec, new references. */
static int lazy_parts(PyObject *tensor, PyObject *recorder, PyObject **held, PyObject **spec) {
    PyObject *own = own_of(tensor);
    if (own == NULL) return ERROR;
    if (PyDict_GetItemWithError(own, str_recorder) != recorder) return PyErr_Occurred() ? ERROR : UNUSUAL;
    PyObject *found = PyDict_GetItemWithError(own, str_spec);
    if (found == NULL) return PyErr_Occurred() ? ERROR : UNUSUAL;
    *spec = Py_NewRef(found);
    found = PyDict_GetItemWithError(own, str_held); /* the class has None */
    *held = Py_NewRef(found == NULL ? Py_None : found);
    return DONE;
}

/* The values of recorded tensors of one spec that are one value each, as a list; the first is recorded. */
static int values_alike(PyObject *const *tensors, Py_ssize_t count, PyObject *recorder, PyObject *spec,
                        PyObject **list) {
    PyObject *values = PyList_New(count);
    if (values == NULL) return ERROR;
    int outcome = DONE;
    for (Py_ssize_t n = 0; n < count && outcome == DONE; n++) {
        PyObject *held, *own, *value;
        outcome = IS(tensors[n], LazyTensor) ? lazy_parts(tensors[n], recorder, &held, &own) : UNUSUAL;
        if (outcome != DONE) break;
        if (held != Py_None || own != spec) outcome = UNUSUAL;
        else if ((value = part_of(tensors[n], str_value)) == NULL) outcome = ERROR;
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
    if ((recorder = part_of(first, str_recorder)) == NULL) return NULL;
    spec = part_of(first, str_spec);
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

/* What a cell returns: returned_of() in call_fast_paths.py ------------------------------------------------------ */

typedef struct {
    PyObject_HEAD
    PyObject *specs, *structure; /* None for one tensor by itself, tuple, list, or a function of a list */
} Returned;
static PyTypeObject ReturnedType;

/* The tensor of an output: a value, or the only row of a list. */
static PyObject *output_made(PyObject *recorder, Py_ssize_t value, PyObject *spec) {
    if (IS(spec, TensorSpec)) return value_tensor(recorder, value, spec);
    PyObject *rows = PyList_New(1), *number = rows == NULL ? NULL : PyLong_FromSsize_t(value);
    if (number == NULL) {
        Py_XDECREF(rows);
        return NULL;
    }
    PyList_SET_ITEM(rows, 0, number);
    return rows_tensor_of(recorder, rows, spec); /* takes the list */
}

static PyObject *returned_made(Returned *self, PyObject *recorder, Py_ssize_t value) {
    Py_ssize_t count = PyTuple_GET_SIZE(self->specs);
    if (self->structure == Py_None) return output_made(recorder, value, PyTuple_GET_ITEM(self->specs, 0));
    int is_tuple = self->structure == (PyObject *)&PyTuple_Type;
    PyObject *all = is_tuple ? PyTuple_New(count) : PyList_New(count);
    for (Py_ssize_t n = 0; n < count && all != NULL; n++) {
        PyObject *made = output_made(recorder, value + n, PyTuple_GET_ITEM(self->specs, n));
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
        if (!IS(PyTuple_GET_ITEM(specs, n), TensorSpec) && !IS(PyTuple_GET_ITEM(specs, n), RowsSpec)) {
            Py_DECREF(specs);
            return PyErr_Format(PyExc_TypeError, "outputs are TensorSpecs or RowsSpecs");
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

#endif
