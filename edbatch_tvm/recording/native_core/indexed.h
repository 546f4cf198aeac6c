#ifndef EDBATCH_INDEXED_H
#define EDBATCH_INDEXED_H
#include "outside.h"
#include "views.h"

/* tensor[index] where vectors of integers say which rows, and tensor[index] = rows: indexed_rows.py ------------------ */

typedef struct {
    Py_ssize_t *at, own[64], count;
} RowPlaces;

static int places_begin(RowPlaces *places, Py_ssize_t count) {
    places->count = count;
    places->at = count <= 64 ? places->own : PyMem_Malloc(count * sizeof(Py_ssize_t));
    return places->at == NULL ? (PyErr_NoMemory(), ERROR) : DONE;
}

static void places_end(RowPlaces *places) {
    if (places->at != places->own) PyMem_Free(places->at);
}

/* A recorded tensor of this recorder that may be written into, or read by rows, as numbers; new references. */
typedef struct {
    PyObject *recorder, *held, *spec, *geometry;
} Parts;

static void parts_end(Parts *parts) {
    Py_XDECREF(parts->recorder);
    Py_XDECREF(parts->held);
    Py_XDECREF(parts->spec);
    Py_XDECREF(parts->geometry);
}

/* Those of a tensor that lies in a list of rows, while elements run and nothing is under autocast. */
static int listed_parts(PyObject *tensor, Parts *parts) {
    *parts = (Parts){NULL, NULL, NULL, NULL};
    if (!IS(tensor, LazyTensor)) return UNUSUAL;
    if ((parts->recorder = part_of(tensor, str_recorder)) == NULL) return ERROR;
    if (!IS(parts->recorder, Recorder) || SLOT(parts->recorder, Recorder_finished) != Py_False) return UNUSUAL;
    int outcome = lazy_parts(tensor, parts->recorder, &parts->held, &parts->spec);
    if (outcome != DONE) return outcome;
    if (!IS(parts->held, Storage) || !IS(parts->spec, TensorSpec) || !is_float(SLOT(parts->spec, TensorSpec_dtype)) ||
        SLOT(parts->held, Storage_listed) != Py_True || !PyLong_CheckExact(SLOT(parts->held, Storage_row)) ||
        SLOT(parts->spec, TensorSpec_size) == zero)
        return UNUSUAL;
    PyObject *rows = rows_in_storage(parts->held); /* they are a list from now on */
    if (rows == NULL || !PyList_CheckExact(rows)) return rows == NULL ? ERROR : UNUSUAL;
    if ((parts->geometry = part_of(tensor, str_geometry)) == NULL) return ERROR;
    if (!is_geometry(parts->geometry)) return UNUSUAL;
    int autocast = autocast_is_on();
    return !autocast ? DONE : autocast < 0 ? ERROR : UNUSUAL;
}

/* strided_storage.leading_of_grid() */
static int leading_of_grid(PyObject *geometry, Py_ssize_t row) {
    PyObject *size = PyTuple_GET_ITEM(geometry, 0), *stride = PyTuple_GET_ITEM(geometry, 1);
    Py_ssize_t rank = PyTuple_GET_SIZE(size), inner = 1;
    if (row <= 0) return -1;
    while (rank && inner < row) {
        Py_ssize_t extent = PyLong_AsSsize_t(PyTuple_GET_ITEM(size, --rank));
        if (extent != 1 && PyLong_AsSsize_t(PyTuple_GET_ITEM(stride, rank)) != inner) return -1;
        inner *= extent;
    }
    if (inner != row || PyLong_AsSsize_t(PyTuple_GET_ITEM(geometry, 2)) % row) return -1;
    for (Py_ssize_t n = 0; n < rank; n++)
        if (PyLong_AsSsize_t(PyTuple_GET_ITEM(size, n)) > 1 && PyLong_AsSsize_t(PyTuple_GET_ITEM(stride, n)) % row)
            return -1;
    return (int)rank;
}

/* Which rows of its storage integers and vectors of integers choose; at least one of them is a vector. */
static int places_at(Parts *parts, PyObject *const *indices, Py_ssize_t many, RowPlaces *places) {
    Py_ssize_t row = PyLong_AsSsize_t(SLOT(parts->held, Storage_row)), count = -1;
    Py_ssize_t all = PyList_GET_SIZE(SLOT(parts->held, Storage__rows));
    DLTensor seen[8];
    if (many < 1 || many > 8 || leading_of_grid(parts->geometry, row) != many) return UNUSUAL;
    for (Py_ssize_t n = 0; n < many; n++) {
        if (PyLong_CheckExact(indices[n])) continue;
        if (!IS(indices[n], Tensor)) return UNUSUAL;
        Py_ssize_t bytes;
        int outcome = plain_tensor(indices[n], seen + n, &bytes);
        if (outcome != DONE) return outcome;
        if (seen[n].dtype.code != DL_INT || seen[n].dtype.bits != 64 || seen[n].ndim != 1) return UNUSUAL;
        if (count != -1 && count != seen[n].shape[0]) return UNUSUAL; /* they are broadcast, or it is an error */
        count = seen[n].shape[0];
    }
    if (count < 1) return UNUSUAL;
    if (places_begin(places, count) != DONE) return ERROR;
    for (Py_ssize_t k = 0; k < count; k++) places->at[k] = PyLong_AsSsize_t(PyTuple_GET_ITEM(parts->geometry, 2)) / row;
    for (Py_ssize_t n = 0; n < many; n++) {
        Py_ssize_t extent = PyLong_AsSsize_t(PyTuple_GET_ITEM(PyTuple_GET_ITEM(parts->geometry, 0), n));
        Py_ssize_t step = PyLong_AsSsize_t(PyTuple_GET_ITEM(PyTuple_GET_ITEM(parts->geometry, 1), n)) / row;
        int vector = !PyLong_CheckExact(indices[n]);
        Py_ssize_t number = vector ? 0 : PyLong_AsSsize_t(indices[n]);
        if (PyErr_Occurred()) return refused();
        const int64_t *numbers = vector ? (const int64_t *)((char *)seen[n].data + seen[n].byte_offset) : NULL;
        for (Py_ssize_t k = 0; k < count; k++) {
            if (vector) number = numbers[k];
            if (number < -extent || number >= extent) return UNUSUAL; /* an error */
            places->at[k] += step * (number < 0 ? number + extent : number);
        }
    }
    for (Py_ssize_t k = 0; k < count; k++)
        if (places->at[k] < 0 || places->at[k] >= all) return UNUSUAL;
    return DONE;
}

/* The parts of an index, borrowed. */
static PyObject *const *index_parts(PyObject **index, Py_ssize_t *many) {
    if (!PyTuple_CheckExact(*index)) {
        *many = 1;
        return index;
    }
    *many = PyTuple_GET_SIZE(*index);
    return ((PyTupleObject *)*index)->ob_item;
}

/* rows_at(): the rows of a tensor at such places, as a tensor. */
static int rows_chosen(PyObject *tensor, PyObject *index, PyObject **result) {
    Parts parts;
    RowPlaces places = {.at = places.own, .count = 0};
    Py_ssize_t many;
    PyObject *const *indices = index_parts(&index, &many), *values = NULL, *shape = NULL, *row = NULL;
    int outcome = listed_parts(tensor, &parts);
    if (outcome == DONE) outcome = places_at(&parts, indices, many, &places);
    if (outcome == DONE) {
        PyObject *dtype = SLOT(parts.spec, TensorSpec_dtype);
        outcome = ERROR;
        shape = PyTuple_GetSlice(PyTuple_GET_ITEM(parts.geometry, 0), many, PY_SSIZE_T_MAX);
        PyObject *given[] = {shape, dtype};
        if (shape != NULL && (row = PyObject_Vectorcall(spec_of_, given, 2, NULL)) != NULL &&
            (values = PyList_New(places.count)) != NULL) {
            for (Py_ssize_t n = 0; n < places.count; n++)
                PyList_SET_ITEM(values, n,
                                Py_NewRef(PyList_GET_ITEM(SLOT(parts.held, Storage__rows), places.at[n])));
            *result = rows_tensor(parts.recorder, values, row); /* takes the list */
            outcome = *result == NULL ? ERROR : DONE;
        }
    }
    Py_XDECREF(shape);
    Py_XDECREF(row);
    places_end(&places);
    parts_end(&parts);
    return outcome;
}

/* The places of the rows that are written by tensor[index] = rows, an index of integers and slices. */
static int places_of_view(Parts *parts, PyObject *key, PyObject **size, RowPlaces *places) {
    PyObject *rest = PyTuple_Pack(1, key), *of_view = NULL, *geometry = NULL;
    if (rest != NULL) of_view = PyTuple_Pack(3, at_index_, parts->geometry, rest);
    if (of_view != NULL) geometry = PyDict_GetItemWithError(GEOMETRIES_, of_view);
    Py_XDECREF(rest);
    Py_XDECREF(of_view);
    if (!is_geometry(geometry)) return PyErr_Occurred() ? ERROR : UNUSUAL;
    Py_ssize_t all = PyList_GET_SIZE(SLOT(parts->held, Storage__rows));
    Py_ssize_t row = PyLong_AsSsize_t(SLOT(parts->held, Storage_row)), first, step = 0, count = 1;
    PyObject *given[] = {geometry, SLOT(parts->held, Storage_row), SLOT(parts->spec, TensorSpec_dtype)};
    PyObject *along = PyObject_Vectorcall(rows_in_, given, 3, NULL);
    if (along == NULL) return ERROR;
    int outcome = UNUSUAL;
    if (along == Py_None) { /* one row, of which it is all */
        Py_ssize_t offset = PyLong_AsSsize_t(PyTuple_GET_ITEM(geometry, 2));
        if (row > 0 && offset % row == 0 && is_dense(geometry, row)) outcome = DONE;
        first = row > 0 ? offset / row : -1;
    } else if (PyTuple_CheckExact(along) && PyTuple_GET_SIZE(along) == 5 && PyTuple_GET_ITEM(along, 4) == Py_None) {
        first = PyLong_AsSsize_t(PyTuple_GET_ITEM(along, 0));
        step = PyLong_AsSsize_t(PyTuple_GET_ITEM(along, 1));
        count = PyLong_AsSsize_t(PyTuple_GET_ITEM(along, 2));
        outcome = count > 0 ? DONE : UNUSUAL;
    } else
        first = -1;
    Py_DECREF(along);
    if (PyErr_Occurred()) return ERROR;
    Py_ssize_t last = first + (count - 1) * step;
    if (outcome == DONE && (first < 0 || first >= all || last < 0 || last >= all)) outcome = UNUSUAL;
    if (outcome == DONE) outcome = places_begin(places, count);
    for (Py_ssize_t n = 0; n < count && outcome == DONE; n++) places->at[n] = first + n * step;
    if (outcome == DONE) *size = Py_NewRef(PyTuple_GET_ITEM(geometry, 0));
    return outcome;
}

/* The values of `count` rows of this many elements that a tensor of this shape has, as a list of its own. */
static int values_written(Parts *target, PyObject *source, PyObject *shape, Py_ssize_t count, PyObject **values) {
    PyObject *held, *spec, *kind = NULL, *found = NULL, *geometry = NULL, *row = SLOT(target->held, Storage_row);
    if (!IS(source, LazyTensor)) return UNUSUAL;
    int outcome = lazy_parts(source, target->recorder, &held, &spec);
    if (outcome != DONE) return outcome;
    outcome = UNUSUAL;
    if (!IS(spec, TensorSpec) || SLOT(spec, TensorSpec_dtype) != SLOT(target->spec, TensorSpec_dtype)) goto done;
    int same = PyObject_RichCompareBool(SLOT(spec, TensorSpec_shape), shape, Py_EQ);
    if (same != 1) {
        outcome = same < 0 ? ERROR : UNUSUAL;
        goto done;
    }
    if (held == Py_None) {
        outcome = ERROR;
        kind = Py_NewRef(spec);
        if ((found = PyList_New(1)) == NULL) goto done;
        PyObject *value = part_of(source, str_value);
        if (value == NULL) goto done;
        PyList_SET_ITEM(found, 0, value);
        outcome = DONE;
    } else if (IS(held, Storage)) {
        if ((geometry = part_of(source, str_geometry)) == NULL) outcome = ERROR;
        else if (geometry != Py_None && geometry == SLOT(held, Storage_whole)) {
            kind = Py_NewRef(SLOT(held, Storage_spec));
            found = Py_XNewRef(rows_in_storage(held));
            outcome = found == NULL ? ERROR : DONE;
        } else
            outcome = resolve(target->recorder, held, spec, geometry, &kind, &found);
    }
    if (outcome == DONE) {
        PyObject *own = IS(kind, RowsSpec) ? SLOT(kind, RowsSpec_row) : kind;
        outcome = IS(own, TensorSpec) && PyList_CheckExact(found) && PyList_GET_SIZE(found) == count &&
                          (IS(kind, RowsSpec) || count == 1)
                      ? DONE
                      : UNUSUAL;
        if (outcome == DONE && PyObject_RichCompareBool(SLOT(own, TensorSpec_size), row, Py_EQ) != 1)
            outcome = UNUSUAL;
        if (outcome == DONE && (*values = PyList_GetSlice(found, 0, count)) == NULL) outcome = ERROR;
    }
done:
    Py_DECREF(held);
    Py_DECREF(spec);
    Py_XDECREF(kind);
    Py_XDECREF(found);
    Py_XDECREF(geometry);
    return outcome;
}

/* write_at(): tensor[index] = source, which replaces whole rows. */
static int rows_written(PyObject *tensor, PyObject *index, PyObject *source) {
    Parts parts;
    RowPlaces places = {.at = places.own, .count = 0};
    PyObject *key = NULL, *size = NULL, *values = NULL;
    int outcome = listed_parts(tensor, &parts);
    if (outcome == DONE && SLOT(parts.recorder, Recorder_tape) != Py_None) { /* else a gradient passes, see as_written() */
        int enabled = grad_is_on();
        outcome = enabled < 0 ? ERROR : enabled ? DONE : UNUSUAL;
    }
    if (outcome != DONE) goto done;
    if ((key = index_key(index)) != NULL) outcome = places_of_view(&parts, key, &size, &places);
    else if (PyErr_Occurred()) outcome = ERROR;
    else {
        Py_ssize_t many, rank = PyTuple_GET_SIZE(PyTuple_GET_ITEM(parts.geometry, 0));
        PyObject *const *indices = index_parts(&index, &many);
        outcome = places_at(&parts, indices, many, &places);
        if (outcome == DONE && (size = PyTuple_New(1 + rank - many)) == NULL) outcome = ERROR;
        for (Py_ssize_t n = 0; n < 1 + rank - many && outcome == DONE; n++) {
            PyObject *extent = n ? Py_NewRef(PyTuple_GET_ITEM(PyTuple_GET_ITEM(parts.geometry, 0), many + n - 1))
                                 : PyLong_FromSsize_t(places.count);
            if (extent == NULL) outcome = ERROR;
            else PyTuple_SET_ITEM(size, n, extent);
        }
    }
    if (outcome == DONE) outcome = values_written(&parts, source, size, places.count, &values);
    for (Py_ssize_t n = 0; n < places.count && outcome == DONE; n++)
        if (PyList_SetItem(SLOT(parts.held, Storage__rows), places.at[n], Py_NewRef(PyList_GET_ITEM(values, n))) < 0)
            outcome = ERROR;
done:
    Py_XDECREF(key);
    Py_XDECREF(size);
    Py_XDECREF(values);
    places_end(&places);
    parts_end(&parts);
    return outcome;
}

#endif
