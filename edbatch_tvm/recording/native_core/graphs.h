#ifndef EDBATCH_GRAPHS_H
#define EDBATCH_GRAPHS_H
#include "values.h"

/* The graph of what is recorded: flush.py, with equal calls as one node ----------------------------------------------- */

enum { MOST_ENTRIES = INT32_MAX / 2, LANES = 8 };

#define ROOM(name, type, count) \
    type *name = room_for(&work->name, (size_t)(count) * sizeof(type), 0); \
    if (name == NULL) return ERROR;

/* What is recorded: calls with the cells, the ends of their operands, and the integers that are attributes, call by
 * call, in a Work; and where tensors from outside lie. */
typedef struct {
    Py_ssize_t calls, operands, given;
    int64_t done, recorded;
    const int16_t *type_ids; /* by the number of a cell */
    Py_ssize_t cells;
    PyObject *outside, *tables; /* of a Recorder */
    const int64_t *earlier; /* tables of the values before, then rows; NULL: not at hand */
    Py_ssize_t before;
    const int64_t *rows; /* addresses of all tensors from outside, then their bytes; NULL: an Outside has them */
    Py_ssize_t all_rows;
    int64_t signature; /* of instance graphs */
} Recorded;

static int integer(PyObject *item, int64_t *value) {
    if (!PyLong_CheckExact(item)) return UNUSUAL;
    int overflow;
    *value = PyLong_AsLongLongAndOverflow(item, &overflow);
    return overflow ? UNUSUAL : DONE;
}

static int slot_number(PyObject *object, const char *name, int64_t *value) {
    PyObject *found = PyObject_GetAttrString(object, name);
    if (found == NULL) return ERROR;
    int outcome = integer(found, value);
    Py_DECREF(found);
    return outcome;
}

/* The address and the bytes of a row of a table. */
static int row_of_table(Recorded *recorded, int64_t table, int64_t row, int64_t *address, int64_t *bytes) {
    if (!PyList_CheckExact(recorded->tables) || table < 0 || table >= PyList_GET_SIZE(recorded->tables)) return UNUSUAL;
    PyObject *own = PyList_GET_ITEM(recorded->tables, table);
    int outcome = slot_number(own, "address", address);
    if (outcome == DONE) outcome = slot_number(own, "bytes", bytes);
    if (outcome == DONE) *address += row * *bytes;
    return outcome;
}

/* Copy a row to the end of the arena for rows of its size; a row of zeros, which needs none, if it is one. */
static int copy_row(Values *self, int64_t address, int64_t bytes, int zeros, Place *place) {
    int outcome;
    int32_t arena = 0;
    while (arena < self->engine->arenas && self->engine->arena_size[arena] * (int64_t)self->engine->item != bytes) arena++;
    const char *data = (const char *)(uintptr_t)address;
    place->group = arena;
    /* (Not -0.0, which may matter.) */
    if (zeros && *(const int32_t *)data == 0 && !memcmp(data, data + sizeof(int32_t), bytes - sizeof(int32_t))) {
        place->row = 1;
        return DONE;
    }
    if (arena == self->engine->arenas) return UNUSUAL;
    outcome = have_rows(self, arena, self->used[arena] + 1);
    if (outcome != DONE) return outcome;
    Arena *target = self->arenas[arena];
    memcpy(target->data + self->used[arena] * target->strides[0], data, bytes);
    place->row = ++self->used[arena];
    return DONE;
}

/* What the graph calls a value that is not one of its own: -1, the zero state, or -1 - i for row i of `outside_row`. */
static int other_value(Values *self, Recorded *recorded, int64_t value, int32_t *others, int32_t *found) {
    Places *places = value < 0 ? &self->outside : &self->values;
    int64_t which = value < 0 ? -1 - value : value;
    if (which >= places->count) return UNUSUAL;
    Place *place = places->places + which;
    if (!place->row) {
        int64_t table, row, address, bytes;
        int outcome = UNUSUAL;
        if (value < 0 && recorded->rows != NULL) {
            if (which >= recorded->all_rows) return UNUSUAL;
            address = recorded->rows[which];
            bytes = recorded->rows[recorded->all_rows + which];
            outcome = DONE;
        } else if (value < 0) {
            PyObject *tables = SLOT(recorded->outside, Outside_table), *rows = SLOT(recorded->outside, Outside_row);
            if (!PyList_CheckExact(tables) || !PyList_CheckExact(rows) || which >= PyList_GET_SIZE(rows)) return UNUSUAL;
            outcome = integer(PyList_GET_ITEM(tables, which), &table);
            if (outcome == DONE) outcome = integer(PyList_GET_ITEM(rows, which), &row);
            if (outcome == DONE) outcome = row_of_table(recorded, table, row, &address, &bytes);
        } else if (recorded->earlier != NULL && which < recorded->before) {
            table = recorded->earlier[which];
            row = recorded->earlier[recorded->before + which];
            outcome = row_of_table(recorded, table, row, &address, &bytes);
        }
        if (outcome == DONE) outcome = copy_row(self, address, bytes, value < 0, place);
        if (outcome != DONE) return outcome;
    }
    if (place->row == 1) {
        *found = ZERO_STATE;
        return DONE;
    }
    if (place->named != self->round) {
        Work *work = self->work;
        place->named = self->round;
        place->name = *others;
        ((int32_t *)work->outside_row.data)[*others] = place->row - 1;
        ((int32_t *)work->external.data)[*others] = place->group;
        ++*others;
    }
    *found = -1 - place->name;
    return DONE;
}

static uint64_t mixed(uint64_t hash, uint64_t value) {
    hash = (hash ^ value) * 0x9E3779B97F4A7C15u;
    return hash ^ hash >> 29;
}

/* The integers of a list. */
static int64_t *integers_of(Room *room, PyObject *list, int *outcome) {
    Py_ssize_t count = PyList_GET_SIZE(list);
    int64_t *made = room_for(room, (count + 1) * sizeof(int64_t), 0);
    *outcome = made == NULL ? ERROR : DONE;
    for (Py_ssize_t n = 0; n < count && *outcome == DONE; n++) *outcome = integer(PyList_GET_ITEM(list, n), made + n);
    return made;
}

/* Read the lists of a Recorder. */
static int read_recorder(Engine *engine, Work *work, Recorded *recorded, PyObject *recorder) {
    PyObject *attributes = SLOT(recorder, Recorder_attributes), *types = SLOT(recorder, Recorder_types);
    int outcome;
    int64_t *cells = integers_of(&work->cells, types, &outcome);
    if (outcome == DONE) integers_of(&work->ends, SLOT(recorder, Recorder_ends), &outcome);
    if (outcome == DONE) integers_of(&work->operands, SLOT(recorder, Recorder_operands), &outcome);
    recorded->calls = PyList_GET_SIZE(types);
    recorded->operands = PyList_GET_SIZE(SLOT(recorder, Recorder_operands));
    if (outcome != DONE || PyList_GET_SIZE(SLOT(recorder, Recorder_ends)) != recorded->calls) return outcome;
    Py_ssize_t all = 0, given = 0;
    PyObject *key, *list;
    for (Py_ssize_t place = 0; PyDict_Next(attributes, &place, &key, &list);) {
        if (!PyList_CheckExact(list)) return UNUSUAL;
        all += PyList_GET_SIZE(list);
    }
    recorded->given = all;
    if (!all) return DONE;
    ROOM(integers, int64_t, all)
    ROOM(counter, int64_t, recorded->cells) /* of each cell, how many of its integers have been read */
    memset(counter, 0, recorded->cells * sizeof(int64_t));
    for (Py_ssize_t call = 0; call < recorded->calls; call++) {
        int64_t cell = cells[call];
        if (cell < 0 || cell >= recorded->cells || recorded->type_ids[cell] < 0) return UNUSUAL;
        int32_t type = recorded->type_ids[cell], count;
        if (type >= engine->types) return UNUSUAL;
        count = engine->attribute_first[type + 1] - engine->attribute_first[type];
        if (!count) continue;
        list = PyDict_GetItemWithError(attributes, PyList_GET_ITEM(types, call));
        if (list == NULL) return PyErr_Occurred() ? ERROR : UNUSUAL;
        if (counter[cell] + count > PyList_GET_SIZE(list) || given + count > all) return UNUSUAL;
        for (int32_t n = 0; n < count; n++)
            if (integer(PyList_GET_ITEM(list, counter[cell]++), integers + given++) != DONE) return UNUSUAL;
    }
    return given == all ? DONE : UNUSUAL;
}

enum { PACKED = 4 }; /* numbers of calls, operands, integers and values, before them */

/* Read packed calls, one element after the other: see recorded_elements.py. */
static int read_packed(Work *work, Recorded *recorded, PyObject *list) {
    Py_ssize_t calls = 0, all = 0, given = 0;
    for (Py_ssize_t n = 0; n < PyList_GET_SIZE(list); n++) {
        PyObject *packed = PyList_GET_ITEM(list, n);
        if (!PyBytes_CheckExact(packed) || PyBytes_GET_SIZE(packed) < PACKED * (Py_ssize_t)sizeof(int64_t)) return UNUSUAL;
        const int64_t *head = (const int64_t *)PyBytes_AS_STRING(packed);
        if (head[0] < 0 || head[1] < 0 || head[2] < 0 ||
            PyBytes_GET_SIZE(packed) != (Py_ssize_t)sizeof(int64_t) * (PACKED + 2 * head[0] + head[1] + head[2]))
            return UNUSUAL;
        calls += head[0];
        all += head[1];
        given += head[2];
    }
    ROOM(cells, int64_t, calls + 1)
    ROOM(ends, int64_t, calls + 1)
    ROOM(operands, int64_t, all + 1)
    ROOM(integers, int64_t, given + 1)
    int64_t value = 0, end = 0;
    for (Py_ssize_t n = 0; n < PyList_GET_SIZE(list); n++) {
        const int64_t *head = (const int64_t *)PyBytes_AS_STRING(PyList_GET_ITEM(list, n)), *next = head + PACKED;
        for (int64_t call = 0; call < head[0]; call++) *cells++ = *next++;
        for (int64_t call = 0; call < head[0]; call++) *ends++ = end + *next++;
        for (int64_t operand = 0; operand < head[1]; operand++, next++) *operands++ = *next < 0 ? *next : value + *next;
        for (int64_t number = 0; number < head[2]; number++) *integers++ = *next++;
        end += head[1];
        value += head[3];
    }
    recorded->calls = calls;
    recorded->operands = all;
    recorded->given = given;
    recorded->recorded = value;
    return DONE;
}

/* The graph of what is recorded; calls of one cell with equal operands and attributes are one node, if that is asked. */
static int make_graph(Values *self, Recorded *recorded, int merge, int32_t *edges, int32_t *others) {
    Engine *engine = self->engine;
    Work *work = self->work;
    Py_ssize_t calls = recorded->calls, all = recorded->operands;
    int64_t count = recorded->recorded - recorded->done, *cells = work->cells.data, *ends = work->ends.data;
    int64_t *operands = work->operands.data, *given = work->integers.data;
    if (calls == 0 || calls >= MOST_ENTRIES / (2 * (engine->types + LANES) + LANES) || all >= MOST_ENTRIES ||
        count < 0 || count > calls * engine->stride || calls * engine->stride > INT32_MAX ||
        recorded->given >= MOST_ENTRIES)
        return UNUSUAL;
    ROOM(node_type, int16_t, calls)
    ROOM(ids, int32_t, count)
    ROOM(operand_ptr, int32_t, calls + 1)
    ROOM(operand_value, int32_t, all + 1)
    ROOM(outside_row, int32_t, all + 1)
    ROOM(external, int32_t, all + 1)
    ROOM(numbers_at, int32_t, calls)
    ROOM(numbers, int64_t, recorded->given + 1)
    ROOM(type_count, int64_t, engine->types)
    memset(type_count, 0, engine->types * sizeof(int64_t));
    Py_ssize_t slots = 16;
    while (slots < 2 * calls) slots *= 2;
    ROOM(table, int32_t, merge ? slots : 1)
    if (merge) memset(table, 0xff, slots * sizeof(int32_t));
    Py_ssize_t have_numbers = 0, taken = 0;
    int64_t value = 0, begin = 0, end;
    int32_t nodes = 0, used = 0;
    *others = 1;
    outside_row[0] = external[0] = 0;
    operand_ptr[0] = 0;
    for (Py_ssize_t call = 0; call < calls; call++, begin = end) {
        int64_t cell = cells[call];
        end = ends[call];
        if (cell < 0 || cell >= recorded->cells || end < begin || end > all) return UNUSUAL;
        int32_t type = recorded->type_ids[cell];
        if (type < 0 || type >= engine->types) return UNUSUAL;
        uint64_t hash = mixed(type + 1, end - begin);
        int32_t at = used;
        for (Py_ssize_t n = begin; n < end; n++) {
            int64_t operand = operands[n];
            if (operand >= recorded->done) {
                if (operand - recorded->done >= value) return UNUSUAL;
                operand_value[used] = ids[operand - recorded->done];
            } else {
                int outcome = other_value(self, recorded, operand, others, &operand_value[used]);
                if (outcome != DONE) return outcome;
            }
            hash = mixed(hash, (uint32_t)operand_value[used++]);
        }
        int32_t first = engine->attribute_first[type], attributes = engine->attribute_first[type + 1] - first;
        numbers_at[nodes] = have_numbers;
        if (taken + attributes > recorded->given) return UNUSUAL;
        for (int32_t n = 0; n < attributes; n++) {
            Attribute *attribute = engine->attributes + first + n;
            int64_t *place = numbers + have_numbers + n;
            *place = given[taken++];
            if (!attribute->bytes) return UNUSUAL;
            if (attribute->bytes == 4) *place = (int32_t)*place;
            if (attribute->bound >= 0 && (*place < 0 || *place >= attribute->bound)) return UNUSUAL;
            hash = mixed(hash, *place);
        }
        int32_t node = nodes;
        if (merge) {
            Py_ssize_t slot = hash & (slots - 1);
            for (; table[slot] >= 0; slot = (slot + 1) & (slots - 1)) {
                int32_t other = table[slot];
                if (node_type[other] == type && operand_ptr[other + 1] - operand_ptr[other] == used - at &&
                    !memcmp(operand_value + operand_ptr[other], operand_value + at, (used - at) * sizeof(int32_t)) &&
                    (!attributes || !memcmp(numbers + numbers_at[other], numbers + have_numbers,
                                            attributes * sizeof(int64_t)))) {
                    node = other;
                    break;
                }
            }
            if (node == nodes) table[slot] = nodes;
        }
        if (node == nodes) {
            node_type[nodes++] = type;
            operand_ptr[nodes] = used;
            type_count[type]++;
            have_numbers += attributes;
        } else
            used = at;
        int32_t outputs = engine->cells[type * CELL_COLUMNS + CELL_WIDTH];
        if (value + outputs > count) return UNUSUAL;
        for (int32_t n = 0; n < outputs; n++) ids[value++] = node * engine->stride + n;
    }
    if (value != count || begin != all || taken != recorded->given) return UNUSUAL;
    work->nodes = nodes;
    *edges = used;
    return DONE;
}

/* Who reads what each node computes: node_users.py. */
static int find_users(Engine *engine, Work *work, int32_t edges) {
    int32_t nodes = work->nodes, *operand_ptr = work->operand_ptr.data, *operand_value = work->operand_value.data;
    ROOM(use_ptr, int32_t, nodes + 1)
    ROOM(user, int32_t, edges + 1)
    ROOM(waits, int32_t, nodes)
    ROOM(last_user, int32_t, nodes)
    memset(use_ptr, 0, (nodes + 1) * sizeof(int32_t));
    memset(last_user, 0xff, nodes * sizeof(int32_t));
    for (int32_t node = 0; node < nodes; node++) {
        waits[node] = 0;
        for (int32_t n = operand_ptr[node]; n < operand_ptr[node + 1]; n++) {
            if (operand_value[n] < 0) continue;
            int32_t producer = operand_value[n] / engine->stride;
            if (last_user[producer] == node) continue;
            last_user[producer] = node;
            use_ptr[producer + 1]++;
            waits[node]++;
        }
    }
    for (int32_t node = 0; node < nodes; node++) use_ptr[node + 1] += use_ptr[node];
    memset(last_user, 0xff, nodes * sizeof(int32_t));
    user[0] = -1;
    for (int32_t node = 0; node < nodes; node++)
        for (int32_t n = operand_ptr[node]; n < operand_ptr[node + 1]; n++) {
            if (operand_value[n] < 0) continue;
            int32_t producer = operand_value[n] / engine->stride;
            if (last_user[producer] == node) continue;
            last_user[producer] = node;
            user[use_ptr[producer]++] = node;
        }
    memmove(use_ptr + 1, use_ptr, nodes * sizeof(int32_t)); /* each had moved to the place of the next */
    use_ptr[0] = 0;
    return DONE;
}

#endif
