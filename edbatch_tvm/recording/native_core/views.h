#ifndef EDBATCH_VIEWS_H
#define EDBATCH_VIEWS_H
#include "tensors.h"

/* Views of recorded tensors: view() in recorded_views.py; and what they are as operands: resolved() in storages.py -- */

/* Whether a geometry is that of `count` elements that lie one after another, in order. */
static int is_dense(PyObject *geometry, Py_ssize_t count) {
    PyObject *size = PyTuple_GET_ITEM(geometry, 0), *stride = PyTuple_GET_ITEM(geometry, 1);
    Py_ssize_t step = 1;
    for (Py_ssize_t n = PyTuple_GET_SIZE(size) - 1; n >= 0; n--) {
        Py_ssize_t extent = PyLong_AsSsize_t(PyTuple_GET_ITEM(size, n));
        if (extent != 1 && PyLong_AsSsize_t(PyTuple_GET_ITEM(stride, n)) != step) return 0;
        step *= extent;
    }
    return step == count;
}

/* Whether it is all of a storage of `count` elements. */
static int is_all(PyObject *geometry, Py_ssize_t count) {
    return PyLong_AsSsize_t(PyTuple_GET_ITEM(geometry, 2)) == 0 && is_dense(geometry, count);
}

static int is_geometry(PyObject *geometry) {
    if (geometry == NULL || !PyTuple_CheckExact(geometry) || PyTuple_GET_SIZE(geometry) != 3) return 0;
    PyObject *size = PyTuple_GET_ITEM(geometry, 0), *stride = PyTuple_GET_ITEM(geometry, 1);
    return PyTuple_CheckExact(size) && PyTuple_CheckExact(stride) && PyLong_CheckExact(PyTuple_GET_ITEM(geometry, 2)) &&
           PyTuple_GET_SIZE(size) == PyTuple_GET_SIZE(stride);
}

/* The list of the rows of a storage, borrowed; recorded now if they were still to be: in deferred.h. */
static PyObject *rows_in_storage(PyObject *held);

/* The value that is this part of another, recorded: in calls.h. */
static int pick_recorded(PyObject *recorder, PyObject *value, PyObject *row, PyObject *part, PyObject *dtype,
                         PyObject **found);

/* The value that is a part of another, of `row` elements; a new reference. _picked() in storages.py. */
static int picked_value(PyObject *recorder, PyObject *value, PyObject *row, PyObject *geometry, PyObject *dtype,
                        PyObject **found) {
    PyObject *picked = SLOT(recorder, Recorder_picked), *plain = NULL, *part = NULL, *key;
    if (!PyDict_CheckExact(picked) || (key = PyTuple_Pack(2, value, geometry)) == NULL)
        return PyErr_Occurred() ? ERROR : UNUSUAL;
    int outcome = ERROR;
    if ((*found = PyDict_GetItemWithError(picked, key)) != NULL) {
        Py_INCREF(*found);
        outcome = DONE;
    } else if (!PyErr_Occurred() && (part = PyObject_CallOneArg(flattened_, geometry)) != NULL &&
               (plain = PyTuple_Pack(2, value, part)) != NULL) {
        *found = PyDict_GetItemWithError(picked, plain);
        if (*found != NULL) {
            Py_INCREF(*found);
            outcome = DONE;
        } else if (!PyErr_Occurred()) {
            outcome = pick_recorded(recorder, value, row, part, dtype, found);
            if (outcome == DONE && PyDict_SetItem(picked, plain, *found) < 0) outcome = ERROR;
        }
        if (outcome == DONE && PyDict_SetItem(picked, key, *found) < 0) outcome = ERROR;
    }
    Py_DECREF(key);
    Py_XDECREF(part);
    Py_XDECREF(plain);
    return outcome;
}

/* What a tensor in a storage is as an operand: its spec, or that of its rows, and the values; new references. */
static int resolve(PyObject *recorder, PyObject *held, PyObject *spec, PyObject *geometry, PyObject **kind,
                   PyObject **values) {
    if (!IS(held, Storage) || !IS(spec, TensorSpec) || !is_float(SLOT(spec, TensorSpec_dtype)) ||
        !is_geometry(geometry))
        return UNUSUAL;
    PyObject *rows = rows_in_storage(held), *row = SLOT(held, Storage_row);
    if (rows == NULL) return ERROR;
    if (!PyList_CheckExact(rows) || !PyLong_CheckExact(row) || SLOT(spec, TensorSpec_size) == zero) return UNUSUAL;
    if (SLOT(held, Storage_listed) != Py_True) {
        if (PyList_GET_SIZE(rows) != 1) return UNUSUAL;
        PyObject *value = Py_NewRef(PyList_GET_ITEM(rows, 0));
        if (!is_all(geometry, PyLong_AsSsize_t(row))) {
            PyObject *part;
            int outcome = picked_value(recorder, value, row, geometry, SLOT(spec, TensorSpec_dtype), &part);
            Py_DECREF(value);
            if (outcome != DONE) return outcome;
            value = part;
        }
        if ((*values = PyList_New(1)) == NULL) {
            Py_DECREF(value);
            return ERROR;
        }
        PyList_SET_ITEM(*values, 0, value);
        *kind = Py_NewRef(spec);
        return DONE;
    }
    PyObject *arguments[] = {geometry, row, SLOT(spec, TensorSpec_dtype)};
    PyObject *along = PyObject_Vectorcall(rows_in_, arguments, 3, NULL);
    if (along == NULL) return ERROR;
    int outcome = UNUSUAL;
    *values = NULL;
    if (along == Py_None) { /* one row, of which it is all */
        Py_DECREF(along);
        Py_ssize_t many = PyLong_AsSsize_t(row), offset = PyLong_AsSsize_t(PyTuple_GET_ITEM(geometry, 2));
        if (PyErr_Occurred()) return ERROR;
        if (many <= 0 || offset < 0 || offset % many || offset / many >= PyList_GET_SIZE(rows) ||
            !is_dense(geometry, many))
            return UNUSUAL;
        if ((*values = PyList_New(1)) == NULL) return ERROR;
        PyList_SET_ITEM(*values, 0, Py_NewRef(PyList_GET_ITEM(rows, offset / many)));
        *kind = Py_NewRef(spec);
        return DONE;
    }
    if (PyTuple_CheckExact(along) && PyTuple_GET_SIZE(along) == 5) { /* None: not rows along one dimension */
        Py_ssize_t first = PyLong_AsSsize_t(PyTuple_GET_ITEM(along, 0)), all = PyList_GET_SIZE(rows);
        Py_ssize_t step = PyLong_AsSsize_t(PyTuple_GET_ITEM(along, 1));
        Py_ssize_t count = PyLong_AsSsize_t(PyTuple_GET_ITEM(along, 2)), last = first + (count - 1) * step;
        PyObject *part = PyTuple_GET_ITEM(along, 4);
        if (PyErr_Occurred()) outcome = ERROR;
        else if (count > 0 && first >= 0 && first < all && last >= 0 && last < all &&
                 (*values = PyList_New(count)) == NULL)
            outcome = ERROR;
        else if (*values != NULL)
            outcome = DONE;
        for (Py_ssize_t n = 0; n < count && outcome == DONE; n++) {
            PyObject *value = Py_NewRef(PyList_GET_ITEM(rows, first + n * step)), *own = value;
            if (part != Py_None) {
                outcome = picked_value(recorder, value, row, part, SLOT(spec, TensorSpec_dtype), &own);
                Py_DECREF(value);
            }
            if (outcome == DONE) PyList_SET_ITEM(*values, n, own);
        }
        *kind = Py_NewRef(PyTuple_GET_ITEM(along, 3));
        if (outcome != DONE) {
            Py_CLEAR(*values);
            Py_CLEAR(*kind);
        }
    }
    Py_DECREF(along);
    return outcome;
}

/* lazy_view() in lazy.py */
static PyObject *view_tensor(PyObject *recorder, PyObject *held, PyObject *geometry, PyObject *dtype) {
    PyObject *spec = NULL, *made = NULL;
    if (dtype == float32_) {
        spec = PyDict_GetItemWithError(SPECS_, PyTuple_GET_ITEM(geometry, 0));
        if (spec == NULL && PyErr_Occurred()) return NULL;
        Py_XINCREF(spec);
    }
    if (spec == NULL) {
        PyObject *arguments[] = {PyTuple_GET_ITEM(geometry, 0), dtype};
        if ((spec = PyObject_Vectorcall(spec_of_, arguments, 2, NULL)) == NULL) return NULL;
    }
    if (!IS(spec, TensorSpec)) PyErr_Format(PyExc_TypeError, "%R is no spec of a tensor", spec);
    else made = dtype == float32_ ? new_tensor(recorder, spec, 1, geometry) : made_view(recorder, spec, geometry);
    if (made != NULL && (set_part(made, str_held, held) < 0 ||
                         set_part(made, str_geometry, geometry) < 0))
        Py_CLEAR(made);
    Py_DECREF(spec);
    return made;
}

/* The storage of a tensor, which has one from now on: storage_of() in lazy.py; a new reference. */
static PyObject *own_storage(PyObject *tensor, PyObject *held, PyObject *spec) {
    if (held != Py_None) return Py_NewRef(held);
    PyObject *made = PyType_GenericAlloc((PyTypeObject *)Storage_, 0), *rows = PyList_New(1);
    PyObject *value = part_of(tensor, str_value);
    if (made == NULL || rows == NULL || value == NULL) goto failed;
    PyList_SET_ITEM(rows, 0, value);
    value = NULL;
    set_slot(made, Storage__rows, rows);
    rows = NULL;
    set_slot(made, Storage_row, Py_NewRef(SLOT(spec, TensorSpec_size)));
    set_slot(made, Storage_listed, Py_NewRef(Py_False));
    set_slot(made, Storage_whole, Py_NewRef(Py_None));
    set_slot(made, Storage_spec, Py_NewRef(Py_None));
    if (set_part(tensor, str_geometry, SLOT(spec, TensorSpec_geometry)) < 0 ||
        set_part(tensor, str_held, made) < 0)
        goto failed;
    return made;
failed:
    Py_XDECREF(made);
    Py_XDECREF(rows);
    Py_XDECREF(value);
    return NULL;
}

static int is_whole_number(PyObject *argument) {
    if (PyLong_CheckExact(argument)) return 1;
    if (!PyTuple_Check(argument)) return 0; /* a list has no hash: Python's way */
    for (Py_ssize_t n = 0; n < PyTuple_GET_SIZE(argument); n++)
        if (!PyLong_CheckExact(PyTuple_GET_ITEM(argument, n))) return 0;
    return 1;
}

/* tensor[index] as the argument of _at() in recorded_views.py; NULL without an exception: of another kind. */
static PyObject *index_key(PyObject *index) {
    int several = PyTuple_CheckExact(index);
    Py_ssize_t count = several ? PyTuple_GET_SIZE(index) : 1;
    PyObject *key = PyTuple_New(count);
    for (Py_ssize_t n = 0; n < count && key != NULL; n++) {
        PyObject *part = several ? PyTuple_GET_ITEM(index, n) : index, *made = NULL;
        if (PyLong_CheckExact(part) || part == Py_None || part == Py_Ellipsis) made = Py_NewRef(part);
        else if (PySlice_Check(part)) {
            PySliceObject *slice = (PySliceObject *)part;
            PyObject *parts[] = {slice->start, slice->stop, slice->step};
            int plain = 1;
            for (int m = 0; m < 3; m++) plain = plain && (parts[m] == Py_None || PyLong_CheckExact(parts[m]));
            if (plain) made = PyTuple_Pack(3, parts[0], parts[1], parts[2]);
        }
        if (made == NULL) Py_CLEAR(key);
        else PyTuple_SET_ITEM(key, n, made);
    }
    return key;
}

/* The key of views in GEOMETRIES; NULL without an exception: an argument of another kind is given by name. */
static PyObject *view_key(PyObject *operator, PyObject *geometry, PyObject *rest, PyObject *named) {
    if (named == NULL) return PyTuple_Pack(3, operator, geometry, rest);
    PyObject *key = PyTuple_New(3 + PyDict_GET_SIZE(named)), *name, *value;
    Py_ssize_t place = 0, count = 3;
    if (key == NULL) return NULL;
    PyTuple_SET_ITEM(key, 0, Py_NewRef(operator));
    PyTuple_SET_ITEM(key, 1, Py_NewRef(geometry));
    PyTuple_SET_ITEM(key, 2, Py_NewRef(rest));
    while (PyDict_Next(named, &place, &name, &value)) {
        PyObject *pair = is_whole_number(value) ? PyTuple_Pack(2, name, value) : NULL;
        if (pair == NULL) {
            Py_DECREF(key);
            return NULL;
        }
        PyTuple_SET_ITEM(key, count++, pair);
    }
    return key;
}

/* What a function makes of a recorded tensor, if that is views that were made before of others that lie as it does. */
static int viewed(PyObject *operator, PyObject *arguments, PyObject *named, PyObject **result) {
    PyObject *tensor = PyTuple_GET_ITEM(arguments, 0), *rest, *key = NULL, *found;
    Py_ssize_t count = PyTuple_GET_SIZE(arguments);
    if (operator == at_index_) {
        PyObject *index = count == 2 && named == NULL ? index_key(PyTuple_GET_ITEM(arguments, 1)) : NULL;
        if (index == NULL) return PyErr_Occurred() ? ERROR : UNUSUAL;
        rest = PyTuple_Pack(1, index);
        Py_DECREF(index);
    } else {
        for (Py_ssize_t n = 1; n < count; n++)
            if (!is_whole_number(PyTuple_GET_ITEM(arguments, n))) return UNUSUAL;
        rest = PyTuple_GetSlice(arguments, 1, count);
    }
    if (rest == NULL) return ERROR;
    int outcome = ERROR;
    PyObject *held = part_of(tensor, str_held), *spec = part_of(tensor, str_spec);
    PyObject *recorder = part_of(tensor, str_recorder), *geometry = NULL, *storage = NULL;
    if (held == NULL || spec == NULL || recorder == NULL) goto done;
    outcome = UNUSUAL;
    if (!IS(spec, TensorSpec)) goto done;
    geometry = part_of(tensor, str_geometry);
    if (geometry == NULL) {
        outcome = ERROR;
        goto done;
    }
    if (geometry == Py_None) Py_SETREF(geometry, Py_NewRef(SLOT(spec, TensorSpec_geometry)));
    outcome = ERROR;
    if ((key = view_key(operator, geometry, rest, named)) == NULL) {
        outcome = PyErr_Occurred() ? ERROR : UNUSUAL;
        goto done;
    }
    found = PyDict_GetItemWithError(GEOMETRIES_, key);
    if (found == NULL) {
        outcome = PyErr_Occurred() ? ERROR : UNUSUAL;
        goto done;
    }
    Py_INCREF(found);
    int several = PyList_CheckExact(found);
    Py_ssize_t views = several ? PyList_GET_SIZE(found) : 1;
    outcome = several || is_geometry(found) ? DONE : UNUSUAL;
    for (Py_ssize_t n = 0; n < views && several && outcome == DONE; n++)
        if (!is_geometry(PyList_GET_ITEM(found, n))) outcome = UNUSUAL;
    if (outcome == DONE && (storage = own_storage(tensor, held, spec)) == NULL) outcome = ERROR;
    if (outcome == DONE && !several) {
        *result = view_tensor(recorder, storage, found, SLOT(spec, TensorSpec_dtype));
        outcome = *result == NULL ? ERROR : DONE;
    } else if (outcome == DONE) {
        PyObject *all = PyTuple_New(views);
        for (Py_ssize_t n = 0; n < views && all != NULL; n++) {
            PyObject *made = view_tensor(recorder, storage, PyList_GET_ITEM(found, n), SLOT(spec, TensorSpec_dtype));
            if (made == NULL) Py_CLEAR(all);
            else PyTuple_SET_ITEM(all, n, made);
        }
        *result = all;
        outcome = all == NULL ? ERROR : DONE;
    }
    Py_DECREF(found);
done:
    Py_DECREF(rest);
    Py_XDECREF(key);
    Py_XDECREF(held);
    Py_XDECREF(spec);
    Py_XDECREF(recorder);
    Py_XDECREF(geometry);
    Py_XDECREF(storage);
    return outcome;
}

#endif
