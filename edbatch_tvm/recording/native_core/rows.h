#ifndef EDBATCH_ROWS_H
#define EDBATCH_ROWS_H
#include "deferred.h"

/* Calls of cells that treat rows alike: row_by_row() in row_calls.py ---------------------------------------------- */

/* The values of the rows of an argument along a dimension; a new list, or that of a storage. If `later`, rows that are
 * still to be recorded may stay so. */
static int values_of_rows(PyObject *recorder, PyObject *argument, PyObject *at, int later, PyObject **values) {
    PyObject *shape, *single = NULL;
    int outcome;
    if (IS(argument, LazyTensor)) {
        PyObject *held, *spec, *geometry, *kind;
        outcome = lazy_parts(argument, recorder, &held, &spec);
        if (outcome != DONE) return outcome;
        geometry = part_of(argument, str_geometry);
        shape = IS(spec, TensorSpec) ? SLOT(spec, TensorSpec_shape) : Py_None;
        Py_ssize_t place = PyLong_AsSsize_t(at);
        outcome = geometry == NULL || (place == -1 && PyErr_Occurred()) ? ERROR : UNUSUAL;
        if (outcome == UNUSUAL && PyTuple_Check(shape) && place >= 0 && place < PyTuple_GET_SIZE(shape)) {
            int one = PyLong_AsSsize_t(PyTuple_GET_ITEM(shape, place)) == 1;
            if (held == Py_None) {
                if (one) single = part_of(argument, str_value);
                if (one && single == NULL) outcome = ERROR;
            } else if (IS(held, Storage) && geometry == SLOT(held, Storage_whole) && geometry != Py_None &&
                       IS(SLOT(held, Storage_spec), RowsSpec) &&
                       PyObject_RichCompareBool(SLOT(SLOT(held, Storage_spec), RowsSpec_at), at, Py_EQ) == 1) {
                PyObject *rows = later ? SLOT(held, Storage__rows) : rows_in_storage(held);
                if (rows == NULL) outcome = ERROR;
                else if (PyList_CheckExact(rows) || (later && is_deferred(rows))) {
                    *values = Py_NewRef(rows);
                    outcome = DONE;
                }
            } else if ((outcome = resolve(recorder, held, spec, geometry, &kind, values)) == DONE) {
                int rows = IS(kind, RowsSpec) &&
                           PyObject_RichCompareBool(SLOT(kind, RowsSpec_at), at, Py_EQ) == 1;
                if (!rows && !(one && PyList_GET_SIZE(*values) == 1)) {
                    Py_CLEAR(*values);
                    outcome = UNUSUAL;
                }
                Py_DECREF(kind);
            }
        }
        Py_XDECREF(geometry);
        Py_DECREF(held);
        Py_DECREF(spec);
    } else if (IS(argument, Tensor)) {
        PyObject *outside = SLOT(recorder, Recorder_outside);
        DLTensor seen;
        Py_ssize_t place = PyLong_AsSsize_t(at), elements = 1;
        if (!IS(outside, Outside) || (place == -1 && PyErr_Occurred())) return PyErr_Occurred() ? ERROR : UNUSUAL;
        outcome = ordinary_tensor(argument, &seen);
        if (outcome != DONE) return outcome;
        for (int n = 0; n < seen.ndim; n++) elements *= seen.shape[n];
        if (!elements || !is_number(outside, &seen) || place < 0 || place >= seen.ndim) return UNUSUAL;
        if (seen.shape[place] == 1) single = outside_number(outside, argument);
        else if ((outcome = known_rows(outside, argument, &seen, (int)place, values)) != UNUSUAL) return outcome;
        else if ((*values = PyObject_CallMethodObjArgs(outside, str_numbers, argument, at, NULL)) != NULL)
            return PyList_CheckExact(*values) ? DONE : UNUSUAL;
        outcome = single == NULL ? ERROR : UNUSUAL;
    } else
        return UNUSUAL;
    if (single != NULL) {
        if ((*values = PyList_New(1)) == NULL) {
            Py_DECREF(single);
            return ERROR;
        }
        PyList_SET_ITEM(*values, 0, single);
        outcome = DONE;
    }
    return outcome;
}

/* The value that a tensor in a storage is, by itself or as the only row; a new reference. */
static int value_of_view(PyObject *recorder, PyObject *tensor, PyObject *held, PyObject *spec, PyObject **value) {
    PyObject *geometry = IS(held, Storage) ? part_of(tensor, str_geometry) : NULL, *kind, *values;
    if (geometry == NULL) return PyErr_Occurred() ? ERROR : UNUSUAL;
    int outcome = resolve(recorder, held, spec, geometry, &kind, &values);
    Py_DECREF(geometry);
    if (outcome != DONE) return outcome;
    int known = IS(kind, TensorSpec) || IS(kind, RowsSpec);
    if (!known || !PyList_CheckExact(values) || PyList_GET_SIZE(values) != 1) outcome = UNUSUAL;
    else *value = Py_NewRef(PyList_GET_ITEM(values, 0));
    Py_DECREF(kind);
    Py_DECREF(values);
    return outcome;
}

/* The value of an argument that is one for all rows; a new reference. */
static int value_of_all(PyObject *recorder, PyObject *argument, PyObject **value) {
    if (IS(argument, LazyTensor)) {
        PyObject *held, *spec;
        int outcome = lazy_parts(argument, recorder, &held, &spec);
        if (outcome != DONE) return outcome;
        if (held != Py_None) outcome = value_of_view(recorder, argument, held, spec, value);
        else if ((*value = PyObject_GenericGetAttr(argument, str_value)) == NULL) outcome = ERROR;
        Py_DECREF(held);
        Py_DECREF(spec);
        return outcome;
    }
    if (!IS(argument, Tensor) || !IS(SLOT(recorder, Recorder_outside), Outside)) return UNUSUAL;
    return (*value = outside_number(SLOT(recorder, Recorder_outside), argument)) == NULL ? ERROR : DONE;
}

/* What nodes for `count` rows return: tensors of rows, in order, by themselves or in a tuple or list. */
static PyObject *rows_returned(PyObject *recorder, PyObject *rows, PyObject *structure, Py_ssize_t value,
                               Py_ssize_t count) {
    Py_ssize_t width = PyList_GET_SIZE(rows);
    PyObject *all = structure == (PyObject *)&PyTuple_Type ? PyTuple_New(width) : PyList_New(width);
    for (Py_ssize_t place = 0; place < width && all != NULL; place++) {
        PyObject *values = PyList_New(count), *made = NULL;
        for (Py_ssize_t n = 0; n < count && values != NULL; n++) {
            PyObject *number = PyLong_FromSsize_t(value + place + n * width);
            if (number == NULL) Py_CLEAR(values);
            else PyList_SET_ITEM(values, n, number);
        }
        if (values != NULL) made = rows_tensor_of(recorder, values, PyList_GET_ITEM(rows, place));
        if (made == NULL) Py_CLEAR(all);
        else if (PyTuple_CheckExact(all)) PyTuple_SET_ITEM(all, place, made);
        else PyList_SET_ITEM(all, place, made);
    }
    if (all == NULL || structure != Py_None) return all;
    PyObject *one = Py_NewRef(PyList_GET_ITEM(all, 0));
    Py_DECREF(all);
    return one;
}

/* leaves_of() in rows.py: arguments and the parts of tuples, and of lists if `lists`; how many there are, or -1. */
static int leaves_of(PyObject *const *arguments, Py_ssize_t count, int lists, PyObject **leaves, int found) {
    for (Py_ssize_t n = 0; n < count && found >= 0; n++) {
        PyObject *argument = arguments[n];
        if (PyTuple_Check(argument))
            found = leaves_of(&PyTuple_GET_ITEM(argument, 0), PyTuple_GET_SIZE(argument), lists, leaves, found);
        else if (lists && PyList_CheckExact(argument))
            found = leaves_of(((PyListObject *)argument)->ob_item, PyList_GET_SIZE(argument), lists, leaves, found);
        else if (found == MOST_LEAVES)
            found = -1;
        else
            leaves[found++] = argument;
    }
    return found;
}

/* Record a call later, and return the tensor of its rows: see deferred.h. */
static int rows_deferred(PyObject *recorder, PyObject **arguments, int many, PyObject *how, PyObject **result) {
    PyObject *by_rows = SLOT(how, RowByRow_by_rows), *specs = SLOT(SLOT(how, RowByRow_operation), RowOperation_specs);
    PyObject *rows = PyTuple_GET_ITEM(PyTuple_GET_ITEM(SLOT(how, RowByRow_node), 3), 0), *leaves[MOST_COLUMNS];
    Py_ssize_t number = -1;
    int width = 0, outcome = DONE;
    for (int n = 0; n < many && outcome == DONE; n++) {
        PyObject *at = PyTuple_GET_ITEM(by_rows, n), *found = NULL;
        if (at == Py_None && !IS(arguments[n], LazyTensor) && !IS(arguments[n], Tensor)) continue; /* a constant */
        if (width == MOST_COLUMNS) outcome = UNUSUAL;
        else if (at == Py_None) outcome = value_of_all(recorder, arguments[n], &found);
        else if ((outcome = values_of_rows(recorder, arguments[n], at, 1, &found)) == DONE) {
            Py_ssize_t count = is_deferred(found) ? ((Deferred *)found)->count : PyList_GET_SIZE(found);
            if (number != -1 && count != number) outcome = UNUSUAL;
            number = count;
            if (PyList_CheckExact(found) && Py_REFCNT(found) > 1) /* of a storage, which may be written into */
                Py_SETREF(found, PyList_GetSlice(found, 0, count));
            if (found == NULL) outcome = ERROR;
        }
        if (found != NULL) leaves[width++] = found;
    }
    if (outcome == DONE && (number < 2 || width != PyTuple_GET_SIZE(specs))) outcome = UNUSUAL;
    if (outcome != DONE) {
        for (int n = 0; n < width; n++) Py_DECREF(leaves[n]);
        return outcome;
    }
    Deferred *made = new_deferred(recorder, how, leaves, width, number); /* takes the leaves */
    if (made == NULL) return ERROR;
    *result = many_rows_tensor(recorder, (PyObject *)made, number, PyList_GET_ITEM(rows, 0));
    return *result == NULL ? ERROR : DONE;
}

/* Record a call as one node a row, where `how`, a RowByRow, knows the node. */
static int rows_recorded(PyObject *recorder, PyObject *const *arguments, Py_ssize_t count, int lists, PyObject *how,
                         PyObject **result) {
    PyObject *leaves[MOST_LEAVES];
    PyObject *node = SLOT(how, RowByRow_node), *by_rows = SLOT(how, RowByRow_by_rows), *columns[MOST_COLUMNS];
    int many = leaves_of(arguments, count, lists, leaves, 0);
    if (!PyTuple_CheckExact(node) || PyTuple_GET_SIZE(node) != 4 || !PyTuple_CheckExact(by_rows) ||
        PyTuple_GET_SIZE(by_rows) != many)
        return UNUSUAL;
    PyObject *type_id = PyTuple_GET_ITEM(node, 0), *order = PyTuple_GET_ITEM(node, 1);
    PyObject *integers = PyTuple_GET_ITEM(node, 2), *returned = PyTuple_GET_ITEM(node, 3);
    if (!PyList_CheckExact(order) || PyList_GET_SIZE(order) > MOST_COLUMNS || !PyList_CheckExact(integers) ||
        PyList_GET_SIZE(integers) || !PyTuple_CheckExact(returned) || PyTuple_GET_SIZE(returned) != 2)
        return UNUSUAL;
    PyObject *rows = PyTuple_GET_ITEM(returned, 0), *structure = PyTuple_GET_ITEM(returned, 1);
    int simple = structure == Py_None || structure == (PyObject *)&PyTuple_Type ||
                 structure == (PyObject *)&PyList_Type;
    if (!simple || !PyList_CheckExact(rows) || !PyList_GET_SIZE(rows)) return UNUSUAL;
    PyObject *given[MOST_COLUMNS], *shared[MOST_COLUMNS];
    int width = 0, outcome = DONE, sharing = 0;
    if (may_defer(recorder, how)) {
        outcome = rows_deferred(recorder, leaves, many, how, result);
        if (outcome != UNUSUAL) return outcome == ERROR ? refused() : outcome;
        outcome = DONE;
    }
    for (int n = 0; n < many && outcome == DONE; n++) {
        PyObject *at = PyTuple_GET_ITEM(by_rows, n);
        if (at == Py_None) continue;
        outcome = width == MOST_COLUMNS ? UNUSUAL : values_of_rows(recorder, leaves[n], at, 0, &columns[width]);
        if (outcome == DONE) width++;
    }
    Py_ssize_t number = width ? PyList_GET_SIZE(columns[0]) : 0, used = PyList_GET_SIZE(order);
    for (int n = 1; n < width; n++)
        if (PyList_GET_SIZE(columns[n]) != number) outcome = outcome == DONE ? UNUSUAL : outcome;
    if (outcome == DONE && !number) outcome = UNUSUAL;
    for (Py_ssize_t n = 0; n < used && outcome == DONE; n++) {
        Py_ssize_t place = PyLong_AsSsize_t(PyList_GET_ITEM(order, n));
        if (place >= width || place < -many || PyErr_Occurred()) outcome = PyErr_Occurred() ? ERROR : UNUSUAL;
        else if (place >= 0) given[n] = columns[place];
        else if ((outcome = value_of_all(recorder, leaves[-1 - place], &given[n])) == DONE) shared[sharing++] = given[n];
    }
    if (outcome == DONE) {
        Py_ssize_t value = append_rows(recorder, type_id, given, (int)used, number, PyList_GET_SIZE(rows));
        *result = value < 0 ? NULL : rows_returned(recorder, rows, structure, value, number);
        outcome = *result == NULL ? ERROR : DONE;
    }
    for (int n = 0; n < width; n++) Py_DECREF(columns[n]);
    for (int n = 0; n < sharing; n++) Py_DECREF(shared[n]);
    return outcome == ERROR ? refused() : outcome;
}

/* RecordedParameter.__getitem__(index): a row that was taken before, that nobody holds and that is as it was. */
static PyObject *parameter_row(PyObject *self, PyObject *index) {
    PyObject *own = IS(self, RecordedParameter) && PyLong_CheckExact(index) ? own_of(self) : NULL;
    PyObject *rows = own == NULL ? NULL : PyDict_GetItemWithError(own, str__rows), *known = NULL;
    if (rows != NULL && PyDict_CheckExact(rows) && PyDict_GetItemWithError(own, str__trains) == Py_False)
        known = PyDict_GetItemWithError(rows, index);
    if (known != NULL && PyTuple_CheckExact(known) && PyTuple_GET_SIZE(known) == 2 &&
        Py_REFCNT(PyTuple_GET_ITEM(known, 0)) == 1) {
        PyObject *row = Py_NewRef(PyTuple_GET_ITEM(known, 0)), *version = PyObject_GetAttr(row, str__version);
        int same = version == NULL ? -1 : PyObject_RichCompareBool(version, PyTuple_GET_ITEM(known, 1), Py_EQ);
        Py_XDECREF(version);
        if (same == 1) return row;
        Py_DECREF(row);
    }
    if (PyErr_Occurred()) return NULL;
    PyObject *arguments[] = {self, index};
    return PyObject_Vectorcall(row_of_parameter_, arguments, 2, NULL);
}

#endif
