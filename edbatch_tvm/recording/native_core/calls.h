#ifndef EDBATCH_CALLS_H
#define EDBATCH_CALLS_H
#include "outside.h"
#include "rows.h"

/* A call: Recorder.call() in recorder.py ------------------------------------------------------------------------- */

typedef struct {
    PyObject **items, *own[24];
    Py_ssize_t count, room;
} Items;

typedef struct {
    PyObject *recorder, *step; /* how far the steps of the site have been followed */
    int vary, later, left_out; /* whether rows may be recorded later, and whether some were left out of the operands */
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

/* Rows that are recorded later, if a call takes them row by row. */
static int leave_out(Call *call, PyObject *spec, Deferred *rows) {
    if (call->rows != -1 && call->rows != rows->count) return UNUSUAL;
    call->rows = rows->count;
    call->left_out = 1;
    return follow(call, spec);
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

static int resolved_by_python(PyObject *recorder, PyObject *tensor, PyObject **kind, PyObject **values) {
    PyObject *arguments[] = {recorder, tensor};
    PyObject *found = PyObject_Vectorcall(resolved_, arguments, 2, NULL);
    if (found == NULL) return ERROR;
    int good = PyTuple_CheckExact(found) && PyTuple_GET_SIZE(found) == 2 &&
               PyList_CheckExact(PyTuple_GET_ITEM(found, 1));
    if (good) {
        *kind = Py_NewRef(PyTuple_GET_ITEM(found, 0));
        *values = Py_NewRef(PyTuple_GET_ITEM(found, 1));
    }
    Py_DECREF(found);
    return good ? DONE : UNUSUAL;
}

static int add_recorded(Call *call, PyObject *tensor, int top) {
    PyObject *held, *spec;
    int outcome = lazy_parts(tensor, call->recorder, &held, &spec);
    if (outcome != DONE) return outcome;
    if (held == Py_None) {
        outcome = follow(call, spec);
        if (outcome == DONE) outcome = items_add(&call->operands, part_of(tensor, str_value));
    } else if (!IS(held, Storage))
        outcome = UNUSUAL;
    else {
        PyObject *geometry = part_of(tensor, str_geometry);
        if (geometry == NULL) outcome = ERROR;
        else if (geometry == SLOT(held, Storage_whole) && geometry != Py_None) {
            PyObject *rows = SLOT(held, Storage__rows);
            if (call->later && top && is_deferred(rows))
                outcome = leave_out(call, SLOT(held, Storage_spec), (Deferred *)rows);
            else if ((rows = rows_in_storage(held)) == NULL)
                outcome = ERROR;
            else
                outcome = add_rows(call, SLOT(held, Storage_spec), rows, top);
        } else {
            PyObject *kind, *values;
            outcome = resolve(call->recorder, held, spec, geometry, &kind, &values);
            if (outcome == UNUSUAL) outcome = resolved_by_python(call->recorder, tensor, &kind, &values);
            if (outcome == DONE) {
                if (IS(kind, RowsSpec)) outcome = add_rows(call, kind, values, top);
                else if ((outcome = follow(call, kind)) == DONE) outcome = items_add_list(&call->operands, values);
                Py_DECREF(kind);
                Py_DECREF(values);
            }
        }
        Py_XDECREF(geometry);
    }
    Py_DECREF(held);
    Py_DECREF(spec);
    return outcome;
}

/* An ordinary tensor whose numbers lie apart, such as an expanded one. It may have rows: each gets a number then, and
 * else the tensor itself does, see number_operands(). */
static int add_unnumbered(Call *call, PyObject *tensor, DLTensor *seen) {
    if (seen->dtype.bits != 32) return UNUSUAL;
    for (int n = 0; n < seen->ndim; n++)
        if (seen->shape[n] == 0) return UNUSUAL;
    PyObject *shape = PyObject_GetAttr(tensor, str_shape);
    if (shape == NULL) return ERROR;
    PyObject *spec = PyDict_GetItemWithError(SPECS_, shape);
    Py_DECREF(shape);
    if (spec == NULL || !IS(spec, TensorSpec)) return PyErr_Occurred() ? ERROR : UNUSUAL;
    int outcome = follow(call, spec);
    return outcome == DONE ? items_add(&call->operands, Py_NewRef(tensor)) : outcome;
}

/* Give the ordinary tensors among the operands of a call their numbers. */
static int number_operands(Call *call) {
    for (Py_ssize_t n = 0; n < call->operands.count; n++) {
        PyObject *one = call->operands.items[n];
        if (PyLong_CheckExact(one)) continue;
        PyObject *number = outside_number(SLOT(call->recorder, Recorder_outside), one);
        if (number == NULL) return ERROR;
        call->operands.items[n] = number;
        Py_DECREF(one);
    }
    return DONE;
}

/* An ordinary tensor: numbers of the dtype of the minibatch are an operand, integers an attribute. */
static int add_ordinary(Call *call, PyObject *tensor) {
    DLTensor seen;
    Py_ssize_t bytes;
    PyObject *outside = SLOT(call->recorder, Recorder_outside);
    if (!IS(outside, Outside)) return UNUSUAL;
    int outcome = plain_tensor(tensor, &seen, &bytes);
    if (outcome == UNUSUAL && ordinary_tensor(tensor, &seen) == DONE && seen.ndim > 1 && is_number(outside, &seen))
        return add_unnumbered(call, tensor, &seen);
    if (outcome != DONE) return outcome;
    if (is_number(outside, &seen)) {
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
    if (seen.dtype.code != DL_INT || !call->vary) return UNUSUAL;
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
    if (outcome != DONE) return outcome;
    int64_t elements = 1;
    for (int n = 0; n < seen.ndim; n++) elements *= seen.shape[n];
    return items_add(&call->attributes, elements == 1 ? PyNumber_Long(tensor) : Py_NewRef(tensor));
}

/* The values of recorded tensors of one spec, those in a storage among them; a new list. */
static int values_of_list(PyObject *list, PyObject *recorder, PyObject *spec, PyObject **found) {
    Py_ssize_t count = PyList_GET_SIZE(list);
    PyObject *values = PyList_New(count);
    int outcome = values == NULL ? ERROR : DONE;
    for (Py_ssize_t n = 0; n < count && outcome == DONE; n++) {
        if (n >= PyList_GET_SIZE(list)) { /* somebody has made it shorter */
            outcome = UNUSUAL;
            break;
        }
        PyObject *tensor = Py_NewRef(PyList_GET_ITEM(list, n)), *held, *own, *value;
        outcome = IS(tensor, LazyTensor) ? lazy_parts(tensor, recorder, &held, &own) : UNUSUAL;
        if (outcome == DONE) {
            if (own != spec) outcome = UNUSUAL;
            else if (held != Py_None) outcome = value_of_view(recorder, tensor, held, own, &value);
            else if ((value = part_of(tensor, str_value)) == NULL) outcome = ERROR;
            if (outcome == DONE) PyList_SET_ITEM(values, n, value);
            Py_DECREF(held);
            Py_DECREF(own);
        }
        Py_DECREF(tensor);
    }
    if (outcome == DONE) *found = values;
    else Py_XDECREF(values);
    return outcome;
}

/* A list of recorded tensors of one spec: any number of them is one cell. An empty list is a constant. */
static int add_list(Call *call, PyObject *list) {
    Py_ssize_t count = PyList_GET_SIZE(list);
    if (!count) return follow_structure(call, str_list, 0);
    if (call->rows != -1 && call->rows != count) return UNUSUAL;
    if (!IS(PyList_GET_ITEM(list, 0), LazyTensor)) return UNUSUAL;
    PyObject *spec = part_of(PyList_GET_ITEM(list, 0), str_spec), *values;
    if (spec == NULL) return ERROR;
    int outcome = UNUSUAL;
    if (IS(spec, TensorSpec) && is_float(SLOT(spec, TensorSpec_dtype)) && SLOT(spec, TensorSpec_rows) != Py_None)
        outcome = values_of_list(list, call->recorder, spec, &values);
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

/* A module that was an argument before, or (in operators) a parameter that was. */
static int add_known(Call *call, PyObject *argument) {
    PyObject *all = SLOT(call->recorder, Recorder_modules), *number, *known;
    if (!call->vary && PyObject_TypeCheck(argument, (PyTypeObject *)Tensor_))
        all = SLOT(call->recorder, Recorder_weights);
    if (!PyDict_CheckExact(all) || !PyDict_GET_SIZE(all)) return UNUSUAL;
    if ((number = PyLong_FromVoidPtr(argument)) == NULL) return ERROR;
    known = PyDict_GetItemWithError(all, number);
    Py_DECREF(number);
    if (known == NULL) return PyErr_Occurred() ? ERROR : UNUSUAL;
    if (!PyTuple_CheckExact(known) || PyTuple_GET_SIZE(known) != 2 || PyTuple_GET_ITEM(known, 0) != argument)
        return UNUSUAL;
    return follow(call, PyTuple_GET_ITEM(known, 1));
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
    if (kind == &PyFloat_Type) { /* 0.0 and -0.0 are equal and not the same */
        PyObject *digits = PyObject_Repr(argument), *part = digits == NULL ? NULL : PyTuple_Pack(2, str_float, digits);
        Py_XDECREF(digits);
        return follow_new(call, part);
    }
    return add_known(call, argument);
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

static void call_end(Call *call) {
    items_end(&call->operands);
    items_end(&call->attributes);
    Py_DECREF(call->step);
}

/* Follow the steps of a site for these arguments, and gather what a node of this call reads. */
static int describe_call(Call *call, PyObject *recorder, PyObject *site, PyObject *const *arguments, Py_ssize_t count,
                         int later) {
    *call = (Call){.recorder = recorder, .step = Py_NewRef(SLOT(site, Site_steps)), .rows = -1, .later = later};
    call->vary = SLOT(site, Site_integers_vary) == Py_True;
    items_begin(&call->operands);
    items_begin(&call->attributes);
    int outcome = DONE;
    for (Py_ssize_t n = 0; n < count && outcome == DONE; n++) outcome = add(call, arguments[n], 0);
    return outcome == DONE ? follow(call, call->rows == 0 || call->rows == 1 ? few[call->rows] : Py_None) : outcome;
}

/* Record a call, or find what Recorder.otherwise() records it by. */
static int record(PyObject *recorder, PyObject *site, PyObject *const *arguments, Py_ssize_t count, PyObject **result) {
    if (!IS(recorder, Recorder) || !IS(site, Site) || !lists_of_recorder(recorder)) return UNUSUAL;
    Call call;
    int outcome = describe_call(&call, recorder, site, arguments, count, 1);
    if (outcome == DONE && call.left_out &&
        !(PyTuple_CheckExact(call.step) && PyTuple_GET_SIZE(call.step) == 3 &&
          IS(PyTuple_GET_ITEM(call.step, 2), RowByRow))) {
        call_end(&call);
        outcome = describe_call(&call, recorder, site, arguments, count, 0);
    }
    if (outcome == ERROR) outcome = refused();
    if (outcome == DONE) {
        PyObject *made = call.step; /* type, outputs, what makes the result; a negative type for calls of other kinds */
        if (!PyTuple_CheckExact(made) || PyTuple_GET_SIZE(made) != 3 ||
            !PyTuple_CheckExact(PyTuple_GET_ITEM(made, 1)) || !PyLong_CheckExact(PyTuple_GET_ITEM(made, 0)))
            outcome = UNUSUAL;
        else if (PyLong_AsSsize_t(PyTuple_GET_ITEM(made, 0)) < 0) {
            PyObject *how = PyTuple_GET_ITEM(made, 2);
            outcome = IS(how, RowByRow) ? rows_recorded(recorder, arguments, count, !call.vary, how, result) : UNUSUAL;
            if (outcome == UNUSUAL) {
                *result = Py_NewRef(how);
                outcome = OTHERWISE;
            }
        } else if (call.rows == 0 && SLOT(site, Site_owner) == Py_None && SLOT(recorder, Recorder_tape) != Py_None)
            outcome = UNUSUAL; /* Recorder.operator() sees what requires a gradient */
        else if (number_operands(&call) != DONE)
            outcome = refused();
        else {
            PyObject *returned = PyTuple_GET_ITEM(made, 2);
            Py_ssize_t value = append(&call, PyTuple_GET_ITEM(made, 0), PyTuple_GET_SIZE(PyTuple_GET_ITEM(made, 1)));
            if (value < 0) *result = NULL;
            else if (Py_TYPE(returned) == &ReturnedType) *result = returned_made((Returned *)returned, recorder, value);
            else *result = PyObject_CallFunction(returned, "On", recorder, value);
            outcome = *result == NULL ? ERROR : DONE;
        }
    }
    call_end(&call);
    return outcome;
}

/* _derived(recorder, strided_storage.pick, (value, spec of `row` elements), part) in storages.py, if it is known. */
static int pick_recorded(PyObject *recorder, PyObject *value, PyObject *row, PyObject *part, PyObject *dtype,
                         PyObject **found) {
    PyObject *operators = SLOT(recorder, Recorder_operators), *none = PyTuple_New(0), *site, *spec;
    PyObject *key = none == NULL ? NULL : PyTuple_Pack(2, pick_, none);
    Py_XDECREF(none);
    if (key == NULL) return ERROR;
    site = PyDict_CheckExact(operators) ? PyDict_GetItemWithError(operators, key) : NULL;
    Py_DECREF(key);
    if (site == NULL || !IS(site, Site) || !is_geometry(part) || SLOT(recorder, Recorder_finished) != Py_False ||
        !lists_of_recorder(recorder))
        return PyErr_Occurred() ? ERROR : UNUSUAL;
    PyObject *shape = PyTuple_Pack(1, row), *given[] = {shape, dtype};
    spec = shape == NULL ? NULL : PyObject_Vectorcall(spec_of_, given, 2, NULL);
    Py_XDECREF(shape);
    if (spec == NULL) return ERROR;
    Call call = {.recorder = recorder, .step = Py_NewRef(SLOT(site, Site_steps)), .rows = -1};
    call.vary = SLOT(site, Site_integers_vary) == Py_True;
    items_begin(&call.operands);
    items_begin(&call.attributes);
    int outcome = follow(&call, spec);
    if (outcome == DONE) outcome = items_add(&call.operands, Py_NewRef(value));
    for (Py_ssize_t n = 0; n < 3 && outcome == DONE; n++) outcome = add(&call, PyTuple_GET_ITEM(part, n), 0);
    if (outcome == DONE) outcome = follow(&call, Py_None);
    if (outcome == ERROR) outcome = refused();
    if (outcome == DONE) {
        PyObject *made = call.step;
        outcome = UNUSUAL;
        if (PyTuple_CheckExact(made) && PyTuple_GET_SIZE(made) == 3 && PyTuple_CheckExact(PyTuple_GET_ITEM(made, 1)) &&
            PyTuple_GET_SIZE(PyTuple_GET_ITEM(made, 1)) == 1 && PyLong_CheckExact(PyTuple_GET_ITEM(made, 0)) &&
            PyLong_AsSsize_t(PyTuple_GET_ITEM(made, 0)) >= 0) {
            Py_ssize_t number = append(&call, PyTuple_GET_ITEM(made, 0), 1);
            *found = number < 0 ? NULL : PyLong_FromSsize_t(number);
            outcome = *found == NULL ? ERROR : DONE;
        }
    }
    call_end(&call);
    Py_DECREF(spec);
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
        if (outcome == OTHERWISE) {
            PyObject *own = PyObject_CallMethodObjArgs(self, str_otherwise, arguments[0], arguments[1], result,
                                                       count > 2 ? arguments[2] : Py_None, NULL);
            Py_DECREF(result);
            return own;
        }
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
        int autocast = autocast_is_on();
        if (autocast < 0) return NULL;
        if (!autocast) {
            int outcome = record(recorder, site, arguments, count, &result);
            if (outcome == ERROR) return NULL;
            if (outcome == OTHERWISE) {
                PyObject *given = PyTuple_New(count), *own = NULL;
                for (Py_ssize_t n = 0; n < count && given != NULL; n++)
                    PyTuple_SET_ITEM(given, n, Py_NewRef(arguments[n]));
                if (given != NULL) own = PyObject_CallMethodObjArgs(self, str_otherwise, given, result, NULL);
                Py_XDECREF(given);
                Py_DECREF(result);
                return own;
            }
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

#endif
