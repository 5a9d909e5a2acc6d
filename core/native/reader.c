/* Reads ordinary usage events fast. What an event means is said in core/usage_event.py alone: whatever is not of the
 * plain shape below is handed back (None) and judged there, and tests/core/test_native_reader.py holds both against
 * each other.
 *
 * The plain shape: one JSON object; every text printable ASCII without escapes; attributes specversion "1.0", id,
 * source, type, subject, time (RFC 3339 in UTC with Z) and data, each once, others simple; data flat; quantities plain
 * decimal digits; subject and type known; all meters of the type add up and have no filters.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

#define NAME_MAX_LENGTH 256
#define PROPERTIES_MAX 64
#define UNIT INT64_C(1000000000000)
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define LITTLE_ENDIAN_MACHINE 1
#else
#define LITTLE_ENDIAN_MACHINE 0
#endif

/* ---- BLAKE2b (RFC 7693), 16 bytes of digest, no key ---- */

static const uint64_t BLAKE_IV[8] = {
    UINT64_C(0x6a09e667f3bcc908), UINT64_C(0xbb67ae8584caa73b), UINT64_C(0x3c6ef372fe94f82b), UINT64_C(0xa54ff53a5f1d36f1),
    UINT64_C(0x510e527fade682d1), UINT64_C(0x9b05688c2b3e6c1f), UINT64_C(0x1f83d9abfb41bd6b), UINT64_C(0x5be0cd19137e2179)};
static inline uint64_t rotate(uint64_t x, int n) { return (x >> n) | (x << (64 - n)); }

#define MIX(a, b, c, d, x, y)                                                                                          \
    a += b + (x); d = rotate(d ^ a, 32); c += d; b = rotate(b ^ c, 24);                                                \
    a += b + (y); d = rotate(d ^ a, 16); c += d; b = rotate(b ^ c, 63);

/* One round; the message words' numbers are written out, so that none is looked up. */
#define ROUND(a, b, c, d, e, f, g, h, i, j, k, l, n, o, p, q)                                                          \
    MIX(v[0], v[4], v[8], v[12], m[a], m[b]) MIX(v[1], v[5], v[9], v[13], m[c], m[d])                                  \
    MIX(v[2], v[6], v[10], v[14], m[e], m[f]) MIX(v[3], v[7], v[11], v[15], m[g], m[h])                                \
    MIX(v[0], v[5], v[10], v[15], m[i], m[j]) MIX(v[1], v[6], v[11], v[12], m[k], m[l])                                \
    MIX(v[2], v[7], v[8], v[13], m[n], m[o]) MIX(v[3], v[4], v[9], v[14], m[p], m[q])

static void blake_block(uint64_t state[8], const uint8_t block[128], uint64_t total, int is_last) {
    uint64_t m[16], v[16];
#if LITTLE_ENDIAN_MACHINE
    memcpy(m, block, sizeof m);
#else
    for (int i = 0; i < 16; i++) {
        uint64_t word = 0;
        for (int k = 7; k >= 0; k--) word = word << 8 | block[8 * i + k];
        m[i] = word;
    }
#endif
    for (int i = 0; i < 8; i++) { v[i] = state[i]; v[i + 8] = BLAKE_IV[i]; }
    v[12] ^= total;
    if (is_last) v[14] = ~v[14];
    ROUND(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
    ROUND(14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3)
    ROUND(11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4)
    ROUND(7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8)
    ROUND(9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13)
    ROUND(2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9)
    ROUND(12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11)
    ROUND(13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10)
    ROUND(6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5)
    ROUND(10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0)
    ROUND(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
    ROUND(14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3)
    for (int i = 0; i < 8; i++) state[i] ^= v[i] ^ v[i + 8];
}

static void blake2b_16(const uint8_t *data, size_t length, uint8_t out[16]) {
    uint64_t h[8];
    uint8_t block[128];
    uint64_t total = 0;
    memcpy(h, BLAKE_IV, sizeof h);
    h[0] ^= UINT64_C(0x01010000) ^ 16;
    while (length > 128) {
        total += 128;
        blake_block(h, data, total, 0);
        data += 128;
        length -= 128;
    }
    memset(block, 0, sizeof block);
    memcpy(block, data, length);
    blake_block(h, block, total + length, 1);
    for (int i = 0; i < 16; i++) out[i] = (uint8_t)(h[i / 8] >> 8 * (i % 8));
}

/* ---- Spans of the record, and a table from bytes to something kept ---- */

typedef struct {
    const char *at;
    Py_ssize_t length;
} Span;

static inline int equals(Span span, const char *text, Py_ssize_t length) {
    return span.length == length && memcmp(span.at, text, (size_t)length) == 0;
}

#define IS(span, literal) equals(span, literal, (Py_ssize_t)sizeof(literal) - 1)

static inline uint64_t hash_bytes(const char *at, Py_ssize_t length) {
    uint64_t hash = UINT64_C(0xcbf29ce484222325) ^ (uint64_t)length;
    while (length >= 8) {
        uint64_t word;
        memcpy(&word, at, 8);
        hash = (hash ^ word) * UINT64_C(0x9e3779b97f4a7c15);
        hash ^= hash >> 29;
        at += 8;
        length -= 8;
    }
    while (length-- > 0) hash = (hash ^ (uint8_t)*at++) * UINT64_C(0x100000001b3);
    return hash ^ hash >> 32;
}

#define SLOTS 4096

typedef struct {
    char *bytes; /* owned; NULL: free */
    Py_ssize_t length;
    PyObject *kept; /* owned */
    uint32_t crc;
} Slot;

typedef struct {
    Slot slots[SLOTS];
    int used;
} Table;

static void table_clear(Table *table) {
    for (int i = 0; i < SLOTS; i++) {
        PyMem_Free(table->slots[i].bytes);
        table->slots[i].bytes = NULL;
        Py_CLEAR(table->slots[i].kept);
    }
    table->used = 0;
}

/* The slot of these bytes, or the free one where they belong. */
static Slot *table_find(Table *table, const char *at, Py_ssize_t length) {
    uint64_t number = hash_bytes(at, length) % SLOTS;
    for (;;) {
        Slot *slot = &table->slots[number];
        if (slot->bytes == NULL || (slot->length == length && memcmp(slot->bytes, at, (size_t)length) == 0)) return slot;
        number = (number + 1) % SLOTS;
    }
}

/* Keeps `kept` (stolen) under the bytes; a table that grew full is emptied first. */
static Slot *table_put(Table *table, const char *at, Py_ssize_t length, PyObject *kept, uint32_t crc) {
    if (table->used >= SLOTS / 2) table_clear(table);
    Slot *slot = table_find(table, at, length);
    char *copy = PyMem_Malloc(length ? (size_t)length : 1);
    if (copy == NULL) {
        Py_DECREF(kept);
        PyErr_NoMemory();
        return NULL;
    }
    memcpy(copy, at, (size_t)length);
    slot->bytes = copy;
    slot->length = length;
    slot->kept = kept;
    slot->crc = crc;
    table->used++;
    return slot;
}

static uint32_t CRC[256];

static uint32_t crc32_of(const char *at, Py_ssize_t length) {
    uint32_t crc = 0xffffffffu;
    while (length-- > 0) crc = crc >> 8 ^ CRC[(crc ^ (uint8_t)*at++) & 0xff];
    return ~crc;
}

/* ---- The reader ---- */

typedef struct {
    PyObject *meter;
    char *property; /* NULL: every event counts one */
    Py_ssize_t property_length;
    PyObject *dimensions; /* tuple of str, borrowed by the spans below */
    Span *names;
    Py_ssize_t names_count;
} Reading;

typedef struct {
    char *name;
    Py_ssize_t length;
    uint32_t crc;
    Reading *readings;
    Py_ssize_t count;
} EventType;

typedef struct {
    PyObject_HEAD
    EventType *types;
    Py_ssize_t types_count;
    PyObject *subjects; /* dict: subject -> tenant, of tenants whose events belong here */
    int64_t max_ahead, max_age, earliest, latest;
    Py_ssize_t max_bytes, max_events;
    Table *known_subjects;
    Table *known_dimensions;
    PyObject *empty;
} Reader;

typedef enum { TEXT, NUMBER, OTHER_VALUE, NOTHING } Kind;

typedef struct {
    Span name;
    Span value;
    Kind kind;
} Property;

static inline const char *skip_space(const char *at, const char *end) {
    while (at < end && (*at == ' ' || *at == '\n' || *at == '\r' || *at == '\t')) at++;
    return at;
}

#define EACH_BYTE(value) (UINT64_C(0x0101010101010101) * (value))
/* The top bit of each byte that is zero; bytes above the lowest such may be marked too. */
#define ZEROS(word) (((word) - EACH_BYTE(1)) & ~(word) & EACH_BYTE(0x80))

/* After the text that begins at `at`, or NULL if it is none of the plain shape. */
static inline const char *read_text(const char *at, const char *end, Span *found) {
    if (at >= end || *at != '"') return NULL;
    const char *begin = ++at;
#if LITTLE_ENDIAN_MACHINE
    while (end - at >= 8) { /* eight bytes at once, to the first that is not plain */
        uint64_t word;
        memcpy(&word, at, 8);
        uint64_t quote = word ^ EACH_BYTE('"'), slash = word ^ EACH_BYTE('\\'), rubout = word ^ EACH_BYTE(0x7f);
        uint64_t low = (word - EACH_BYTE(0x20)) & ~word;
        uint64_t stops = (low | word | ZEROS(quote) | ZEROS(slash) | ZEROS(rubout)) & EACH_BYTE(0x80);
        if (stops) {
            at += __builtin_ctzll(stops) / 8;
            break;
        }
        at += 8;
    }
#endif
    while (at < end) {
        unsigned char c = (unsigned char)*at;
        if (c == '"') {
            found->at = begin;
            found->length = at - begin;
            return at + 1;
        }
        if (c < 0x20 || c > 0x7e || c == '\\') return NULL;
        at++;
    }
    return NULL;
}

static inline int is_digit(char c) { return c >= '0' && c <= '9'; }

/* After a text, plain number, true, false or null; NULL for anything else. */
static const char *read_simple(const char *at, const char *end, Property *found) {
    if (at >= end) return NULL;
    if (*at == '"') {
        found->kind = TEXT;
        return read_text(at, end, &found->value);
    }
    if (is_digit(*at)) {
        const char *begin = at;
        while (at < end && is_digit(*at)) at++;
        if (*begin == '0' && at - begin > 1) return NULL;
        if (at < end && *at == '.') {
            const char *fraction = ++at;
            while (at < end && is_digit(*at)) at++;
            if (at == fraction) return NULL;
        }
        if (at < end && (*at == 'e' || *at == 'E')) return NULL;
        found->kind = NUMBER;
        found->value.at = begin;
        found->value.length = at - begin;
        return at;
    }
    Py_ssize_t left = end - at;
    found->kind = OTHER_VALUE;
    if (left >= 4 && memcmp(at, "true", 4) == 0) return at + 4;
    if (left >= 5 && memcmp(at, "false", 5) == 0) return at + 5;
    found->kind = NOTHING;
    if (left >= 4 && memcmp(at, "null", 4) == 0) return at + 4;
    return NULL;
}

static inline int two_digits(const char *at) {
    return is_digit(at[0]) && is_digit(at[1]) ? (at[0] - '0') * 10 + (at[1] - '0') : -1;
}

/* Microseconds since 1970 of "2026-10-31T07:08:09.123456789Z", or -1. Digits beyond microseconds are cut. */
static int64_t read_time(Span text) {
    const char *at = text.at;
    if (text.length < 20 || text.at[text.length - 1] != 'Z') return -1;
    if (at[4] != '-' || at[7] != '-' || at[10] != 'T' || at[13] != ':' || at[16] != ':') return -1;
    int century = two_digits(at), years = two_digits(at + 2), month = two_digits(at + 5), day = two_digits(at + 8);
    int hour = two_digits(at + 11), minute = two_digits(at + 14), second = two_digits(at + 17);
    if (century < 0 || years < 0 || hour < 0 || minute < 0 || second < 0) return -1;
    int year = century * 100 + years;
    if (year < 1970 || month < 1 || month > 12 || day < 1 || hour > 23 || minute > 59 || second > 59) return -1;
    static const int days[12] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    int leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    if (day > days[month - 1] + (leap && month == 2)) return -1;
    int64_t fraction = 0;
    if (text.length > 20) {
        Py_ssize_t digits = text.length - 21;
        if (at[19] != '.' || digits < 1 || digits > 9) return -1;
        for (Py_ssize_t i = 0; i < digits; i++)
            if (!is_digit(at[20 + i])) return -1;
        for (Py_ssize_t i = 0; i < 6; i++) fraction = fraction * 10 + (i < digits ? at[20 + i] - '0' : 0);
    }
    /* Days since 1970 of the proleptic Gregorian calendar, years beginning in March. */
    int64_t y = month <= 2 ? year - 1 : year;
    int64_t era = y / 400, of_era = y - era * 400;
    int64_t of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    int64_t number = era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
    return (((number * 24 + hour) * 60 + minute) * 60 + second) * INT64_C(1000000) + fraction;
}

/* A quantity x 10^12 from plain digits with at most 15 before and 12 after the point; 0 if it is none. */
static int read_quantity(Span text, unsigned __int128 *found) {
    Py_ssize_t i = 0, whole = 0, fraction = 0;
    uint64_t before = 0, after = 0;
    for (; i < text.length && is_digit(text.at[i]); i++, whole++)
        if (whole < 15) before = before * 10 + (uint64_t)(text.at[i] - '0');
    if (whole < 1 || whole > 15) return 0;
    if (i < text.length) {
        if (text.at[i++] != '.') return 0;
        for (; i < text.length && is_digit(text.at[i]); i++, fraction++)
            if (fraction < 12) after = after * 10 + (uint64_t)(text.at[i] - '0');
        if (i != text.length || fraction < 1 || fraction > 12) return 0;
        for (Py_ssize_t k = fraction; k < 12; k++) after *= 10;
    }
    *found = (unsigned __int128)before * (uint64_t)UNIT + after;
    return 1;
}

static PyObject *long_of(unsigned __int128 value) {
    if (value <= INT64_MAX) return PyLong_FromLongLong((long long)value);
    PyObject *high = PyLong_FromUnsignedLongLong((uint64_t)(value >> 64)), *bits = PyLong_FromLong(64), *shifted = NULL;
    PyObject *low = PyLong_FromUnsignedLongLong((uint64_t)value), *whole = NULL;
    if (high && bits && low && (shifted = PyNumber_Lshift(high, bits))) whole = PyNumber_Or(shifted, low);
    Py_XDECREF(high);
    Py_XDECREF(bits);
    Py_XDECREF(shifted);
    Py_XDECREF(low);
    return whole;
}

/* The last property of a name, as a JSON object's reader would keep it; NULL if there is none. */
static inline Property *find_property(Property *properties, int count, const char *name, Py_ssize_t length) {
    for (int i = count - 1; i >= 0; i--)
        if (equals(properties[i].name, name, length)) return &properties[i];
    return NULL;
}

/* Dimension values as a kept tuple; NULL without an error set: not of the plain shape. */
static Slot *read_dimensions(Reader *self, Reading *reading, Property *properties, int count) {
    char joined[2048];
    Py_ssize_t length = 0;
    for (Py_ssize_t i = 0; i < reading->names_count; i++) {
        Property *property = find_property(properties, count, reading->names[i].at, reading->names[i].length);
        Py_ssize_t size = 0;
        if (property != NULL && property->kind != NOTHING) {
            if (property->kind != TEXT) return NULL;
            size = property->value.length;
        }
        if (size > NAME_MAX_LENGTH || length + size + 1 > (Py_ssize_t)sizeof joined) return NULL;
        if (size) memcpy(joined + length, property->value.at, (size_t)size);
        length += size;
        joined[length++] = '\0';
    }
    Slot *slot = table_find(self->known_dimensions, joined, length);
    if (slot->bytes != NULL) return slot;
    PyObject *values = PyTuple_New(reading->names_count);
    if (values == NULL) return NULL;
    const char *at = joined;
    for (Py_ssize_t i = 0; i < reading->names_count; i++) {
        Py_ssize_t size = (Py_ssize_t)strlen(at);
        PyObject *value = PyUnicode_FromStringAndSize(at, size);
        if (value == NULL) {
            Py_DECREF(values);
            return NULL;
        }
        PyTuple_SET_ITEM(values, i, value);
        at += size + 1;
    }
    return table_put(self->known_dimensions, joined, length, values, crc32_of(joined, length - 1));
}

/* The tenant of a subject whose events belong here (borrowed); NULL without an error set: not known. */
static PyObject *read_tenant(Reader *self, Span subject) {
    Slot *slot = table_find(self->known_subjects, subject.at, subject.length);
    if (slot->bytes != NULL) return slot->kept;
    PyObject *text = PyUnicode_FromStringAndSize(subject.at, subject.length);
    if (text == NULL) return NULL;
    PyObject *tenant = PyDict_GetItemWithError(self->subjects, text);
    Py_DECREF(text);
    if (tenant == NULL) return NULL;
    Py_INCREF(tenant);
    slot = table_put(self->known_subjects, subject.at, subject.length, tenant, 0);
    return slot ? slot->kept : NULL;
}

/* One event at `at`: a tuple (tenant, time_us, identity, digest, measures) and where it ended. NULL without an error
 * set: not of the plain shape. */
static PyObject *read_event(Reader *self, const char *at, const char *end, int64_t received, const char **ended) {
    Span specversion = {0}, id = {0}, source = {0}, type = {0}, subject = {0}, time = {0};
    Property properties[PROPERTIES_MAX];
    int count = 0, has_data = 0;
    const char *begin = at = skip_space(at, end);
    if (at >= end || *at++ != '{') return NULL;
    for (;;) {
        Span name;
        at = read_text(skip_space(at, end), end, &name);
        if (at == NULL) return NULL;
        at = skip_space(at, end);
        if (at >= end || *at++ != ':') return NULL;
        at = skip_space(at, end);
        Span *wanted = IS(name, "id") ? &id : IS(name, "source") ? &source : IS(name, "type") ? &type
            : IS(name, "subject") ? &subject : IS(name, "time") ? &time : IS(name, "specversion") ? &specversion : NULL;
        if (wanted != NULL) {
            if (wanted->at != NULL) return NULL;
            at = read_text(at, end, wanted);
        } else if (IS(name, "data")) {
            if (has_data++ || at >= end || *at++ != '{') return NULL;
            at = skip_space(at, end);
            if (at < end && *at == '}') {
                at++;
            } else {
                for (;;) {
                    if (count == PROPERTIES_MAX) return NULL;
                    Property *property = &properties[count++];
                    at = read_text(skip_space(at, end), end, &property->name);
                    if (at == NULL) return NULL;
                    at = skip_space(at, end);
                    if (at >= end || *at++ != ':') return NULL;
                    at = read_simple(skip_space(at, end), end, property);
                    if (at == NULL) return NULL;
                    at = skip_space(at, end);
                    if (at >= end) return NULL;
                    if (*at == '}') break;
                    if (*at++ != ',') return NULL;
                }
                at++;
            }
        } else {
            Property other;
            at = read_simple(at, end, &other);
        }
        if (at == NULL) return NULL;
        at = skip_space(at, end);
        if (at >= end) return NULL;
        if (*at == '}') break;
        if (*at++ != ',') return NULL;
    }
    *ended = ++at;
    if (at - begin > self->max_bytes || !has_data || !subject.at || !IS(specversion, "1.0")) return NULL;
    if (id.length < 1 || id.length > NAME_MAX_LENGTH || source.length < 1 || source.length > NAME_MAX_LENGTH) return NULL;
    EventType *event_type = NULL;
    for (Py_ssize_t i = 0; i < self->types_count; i++)
        if (equals(type, self->types[i].name, self->types[i].length)) event_type = &self->types[i];
    if (event_type == NULL || time.at == NULL) return NULL;
    int64_t time_us = read_time(time);
    if (time_us < self->earliest || time_us >= self->latest) return NULL;
    if (time_us < received - self->max_age || time_us > received + self->max_ahead) return NULL;
    PyObject *tenant = read_tenant(self, subject);
    if (tenant == NULL) return NULL;

    PyObject *measures = PyList_New(0);
    if (measures == NULL) return NULL;
    uint32_t digest = event_type->crc;
    for (Py_ssize_t i = 0; i < event_type->count; i++) {
        Reading *reading = &event_type->readings[i];
        unsigned __int128 quantity = UNIT;
        if (reading->property != NULL) {
            Property *property = find_property(properties, count, reading->property, reading->property_length);
            if (property == NULL || property->kind == NOTHING) continue;
            if (property->kind == OTHER_VALUE || !read_quantity(property->value, &quantity)) goto not_plain;
        }
        digest = digest * 31u + (uint32_t)quantity;
        PyObject *values = self->empty;
        if (reading->names_count) {
            Slot *slot = read_dimensions(self, reading, properties, count);
            if (slot == NULL) goto not_plain;
            values = slot->kept;
            digest += slot->crc;
        }
        PyObject *number = long_of(quantity);
        PyObject *measure = number ? PyTuple_Pack(3, reading->meter, values, number) : NULL;
        Py_XDECREF(number);
        if (measure == NULL || PyList_Append(measures, measure) < 0) {
            Py_XDECREF(measure);
            goto not_plain;
        }
        Py_DECREF(measure);
    }
    if (PyList_GET_SIZE(measures) == 0) goto not_plain;

    {
        Py_ssize_t tenant_length;
        const char *tenant_bytes = PyUnicode_AsUTF8AndSize(tenant, &tenant_length);
        uint8_t named[3 * NAME_MAX_LENGTH + 2], identity[16];
        if (tenant_bytes == NULL || tenant_length > NAME_MAX_LENGTH) goto not_plain;
        size_t length = (size_t)tenant_length;
        memcpy(named, tenant_bytes, length);
        named[length++] = 0;
        memcpy(named + length, source.at, (size_t)source.length);
        length += (size_t)source.length;
        named[length++] = 0;
        memcpy(named + length, id.at, (size_t)id.length);
        length += (size_t)id.length;
        blake2b_16(named, length, identity);
        PyObject *event = PyTuple_New(5);
        if (event == NULL) goto not_plain;
        PyObject *time_number = PyLong_FromLongLong(time_us);
        PyObject *key = PyBytes_FromStringAndSize((const char *)identity, 16);
        PyObject *digest_number = PyLong_FromUnsignedLong(digest);
        Py_INCREF(tenant);
        PyTuple_SET_ITEM(event, 0, tenant);
        PyTuple_SET_ITEM(event, 1, time_number);
        PyTuple_SET_ITEM(event, 2, key);
        PyTuple_SET_ITEM(event, 3, digest_number);
        PyTuple_SET_ITEM(event, 4, measures);
        if (!time_number || !key || !digest_number) {
            Py_DECREF(event);
            return NULL;
        }
        return event;
    }
not_plain:
    Py_DECREF(measures);
    return NULL;
}

static PyObject *none_unless_failed(void) {
    if (PyErr_Occurred()) return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(read_doc, "read(value, received_us)\n--\n\nReturn (tenant, time_us, identity, digest, measures), or None.");

static PyObject *reader_read(Reader *self, PyObject *const *args, Py_ssize_t count) {
    if (count != 2 || !PyBytes_Check(args[0])) {
        PyErr_SetString(PyExc_TypeError, "read(value: bytes, received_us: int)");
        return NULL;
    }
    int64_t received = PyLong_AsLongLong(args[1]);
    if (received == -1 && PyErr_Occurred()) return NULL;
    const char *at = PyBytes_AS_STRING(args[0]), *end = at + PyBytes_GET_SIZE(args[0]), *ended;
    if (end - at > self->max_bytes) Py_RETURN_NONE;
    PyObject *event = read_event(self, at, end, received, &ended);
    if (event == NULL) return none_unless_failed();
    if (skip_space(ended, end) != end) {
        Py_DECREF(event);
        Py_RETURN_NONE;
    }
    return event;
}

PyDoc_STRVAR(read_array_doc, "read_array(value, received_us)\n--\n\nReturn what `read` returns for each element, or None if"
                             " any is not of the plain shape.");

static PyObject *reader_read_array(Reader *self, PyObject *const *args, Py_ssize_t count) {
    if (count != 2 || !PyBytes_Check(args[0])) {
        PyErr_SetString(PyExc_TypeError, "read_array(value: bytes, received_us: int)");
        return NULL;
    }
    int64_t received = PyLong_AsLongLong(args[1]);
    if (received == -1 && PyErr_Occurred()) return NULL;
    const char *at = PyBytes_AS_STRING(args[0]), *end = at + PyBytes_GET_SIZE(args[0]);
    if (end - at > self->max_bytes) Py_RETURN_NONE;
    at = skip_space(at, end);
    if (at >= end || *at++ != '[') Py_RETURN_NONE;
    PyObject *events = PyList_New(0);
    if (events == NULL) return NULL;
    for (;;) {
        PyObject *event = read_event(self, at, end, received, &at);
        if (event == NULL || PyList_Append(events, event) < 0) {
            Py_XDECREF(event);
            break;
        }
        Py_DECREF(event);
        at = skip_space(at, end);
        if (at >= end || PyList_GET_SIZE(events) > self->max_events) break;
        if (*at == ']') {
            if (skip_space(at + 1, end) != end) break;
            return events;
        }
        if (*at++ != ',') break;
    }
    Py_DECREF(events);
    return none_unless_failed();
}

PyDoc_STRVAR(read_records_doc,
             "read_records(records, begin, most, first, events, places)\n--\n\nRead records of one event each from the"
             " number `begin` on, as `read` would, and append what they hold to `events` and their places to `places`;"
             " stops at `most` events or at a record it does not know, and returns that record's number.");

static PyObject *NAME_VALUE, *NAME_OFFSET, *NAME_TIMESTAMP;

static PyObject *reader_read_records(Reader *self, PyObject *const *args, Py_ssize_t count) {
    if (count != 6 || !PyList_Check(args[0]) || !PyList_Check(args[4]) || !PyList_Check(args[5])) {
        PyErr_SetString(PyExc_TypeError, "read_records(records, begin, most, first, events, places)");
        return NULL;
    }
    PyObject *records = args[0], *events = args[4], *places = args[5];
    Py_ssize_t number = PyLong_AsSsize_t(args[1]), most = PyLong_AsSsize_t(args[2]);
    long long first = PyLong_AsLongLong(args[3]);
    if (PyErr_Occurred()) return NULL;
    if (number < 0) {
        PyErr_SetString(PyExc_ValueError, "a record's number is not negative");
        return NULL;
    }
    for (; number < PyList_GET_SIZE(records) && PyList_GET_SIZE(events) < most; number++) {
        /* Owned, because asking for an attribute may run any code. */
        PyObject *record = PyList_GET_ITEM(records, number), *event = NULL, *place = NULL;
        Py_INCREF(record);
        PyObject *value = PyObject_GetAttr(record, NAME_VALUE);
        PyObject *offset = value ? PyObject_GetAttr(record, NAME_OFFSET) : NULL;
        PyObject *timestamp = offset ? PyObject_GetAttr(record, NAME_TIMESTAMP) : NULL;
        int is_known = 0, failed = timestamp == NULL;
        if (!failed && PyBytes_Check(value)) {
            long long where = PyLong_AsLongLong(offset), received = PyLong_AsLongLong(timestamp);
            failed = PyErr_Occurred() != NULL;
            const char *at = PyBytes_AS_STRING(value), *end = at + PyBytes_GET_SIZE(value), *ended;
            if (!failed && end - at <= self->max_bytes) {
                event = read_event(self, at, end, received * 1000, &ended);
                failed = event == NULL && PyErr_Occurred() != NULL;
                is_known = event != NULL && skip_space(ended, end) == end;
            }
            if (is_known) {
                place = PyLong_FromLongLong((where - first) << 14);
                failed = place == NULL || PyList_Append(events, event) < 0 || PyList_Append(places, place) < 0;
            }
        }
        Py_XDECREF(value);
        Py_XDECREF(offset);
        Py_XDECREF(timestamp);
        Py_XDECREF(event);
        Py_XDECREF(place);
        Py_DECREF(record);
        if (failed) return NULL;
        if (!is_known) break;
    }
    return PyLong_FromSsize_t(number);
}

static void free_types(Reader *self) {
    for (Py_ssize_t i = 0; i < self->types_count; i++) {
        EventType *type = &self->types[i];
        for (Py_ssize_t k = 0; k < type->count; k++) {
            Py_XDECREF(type->readings[k].meter);
            PyMem_Free(type->readings[k].property);
            Py_XDECREF(type->readings[k].dimensions);
            PyMem_Free(type->readings[k].names);
        }
        PyMem_Free(type->readings);
        PyMem_Free(type->name);
    }
    PyMem_Free(self->types);
    self->types = NULL;
    self->types_count = 0;
}

static void reader_dealloc(Reader *self) {
    free_types(self);
    if (self->known_subjects) table_clear(self->known_subjects);
    if (self->known_dimensions) table_clear(self->known_dimensions);
    PyMem_Free(self->known_subjects);
    PyMem_Free(self->known_dimensions);
    Py_XDECREF(self->subjects);
    Py_XDECREF(self->empty);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static char *copy_text(PyObject *text, Py_ssize_t *length) {
    const char *utf8 = PyUnicode_AsUTF8AndSize(text, length);
    if (utf8 == NULL) return NULL;
    char *copy = PyMem_Malloc((size_t)*length + 1);
    if (copy == NULL) return (char *)PyErr_NoMemory();
    memcpy(copy, utf8, (size_t)*length + 1);
    return copy;
}

/* One reading from (meter id, value property or None, dimension names). */
static int set_reading(Reading *reading, PyObject *given) {
    PyObject *meter, *property, *dimensions;
    if (!PyArg_ParseTuple(given, "UOO!", &meter, &property, &PyTuple_Type, &dimensions)) return -1;
    Py_INCREF(meter);
    Py_INCREF(dimensions);
    reading->meter = meter;
    reading->dimensions = dimensions;
    if (property != Py_None && !(reading->property = copy_text(property, &reading->property_length))) return -1;
    reading->names_count = PyTuple_GET_SIZE(dimensions);
    reading->names = PyMem_Calloc((size_t)reading->names_count + 1, sizeof(Span));
    if (reading->names == NULL) return PyErr_NoMemory() ? 0 : -1;
    for (Py_ssize_t i = 0; i < reading->names_count; i++) {
        reading->names[i].at = PyUnicode_AsUTF8AndSize(PyTuple_GET_ITEM(dimensions, i), &reading->names[i].length);
        if (reading->names[i].at == NULL) return -1;
    }
    return 0;
}

static int reader_init(Reader *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"types", "subjects", "max_bytes", "max_events", "max_ahead_us", "max_age_us", "earliest_us",
                            "latest_us", NULL};
    PyObject *types;
    long long ahead, age, earliest, latest;
    if (self->types != NULL) {
        PyErr_SetString(PyExc_TypeError, "a reader is made once");
        return -1;
    }
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!O!nnLLLL", names, &PyDict_Type, &types, &PyDict_Type,
                                     &self->subjects, &self->max_bytes, &self->max_events, &ahead, &age, &earliest, &latest)) {
        self->subjects = NULL;
        return -1;
    }
    Py_INCREF(self->subjects);
    self->max_ahead = ahead;
    self->max_age = age;
    self->earliest = earliest;
    self->latest = latest;
    self->known_subjects = PyMem_Calloc(1, sizeof(Table));
    self->known_dimensions = PyMem_Calloc(1, sizeof(Table));
    self->types = PyMem_Calloc((size_t)PyDict_GET_SIZE(types) + 1, sizeof(EventType));
    self->empty = PyTuple_New(0);
    if (!self->known_subjects || !self->known_dimensions || !self->types || !self->empty) return PyErr_NoMemory() ? 0 : -1;
    PyObject *name, *readings;
    Py_ssize_t position = 0;
    while (PyDict_Next(types, &position, &name, &readings)) {
        EventType *type = &self->types[self->types_count++];
        if (!(type->name = copy_text(name, &type->length))) return -1;
        type->crc = crc32_of(type->name, type->length);
        if (!PyTuple_Check(readings)) {
            PyErr_SetString(PyExc_TypeError, "types: {event type: ((meter id, value property, dimensions), ...)}");
            return -1;
        }
        type->readings = PyMem_Calloc((size_t)PyTuple_GET_SIZE(readings) + 1, sizeof(Reading));
        if (type->readings == NULL) return PyErr_NoMemory() ? 0 : -1;
        for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(readings); i++, type->count++) {
            PyObject *given = PyTuple_GET_ITEM(readings, i);
            if (!PyTuple_Check(given)) {
                PyErr_SetString(PyExc_TypeError, "a reading is (meter id, value property, dimensions)");
                return -1;
            }
            if (set_reading(&type->readings[i], given) < 0) {
                type->count++;
                return -1;
            }
        }
    }
    return 0;
}

static PyMethodDef reader_methods[] = {
    {"read", (PyCFunction)(void (*)(void))reader_read, METH_FASTCALL, read_doc},
    {"read_records", (PyCFunction)(void (*)(void))reader_read_records, METH_FASTCALL, read_records_doc},
    {"read_array", (PyCFunction)(void (*)(void))reader_read_array, METH_FASTCALL, read_array_doc},
    {NULL, NULL, 0, NULL}};

static PyTypeObject ReaderType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "core.native.reader.Reader",
    .tp_doc = PyDoc_STR("Reads ordinary usage events; what it returns None for is judged in Python."),
    .tp_basicsize = sizeof(Reader),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)reader_init,
    .tp_dealloc = (destructor)reader_dealloc,
    .tp_methods = reader_methods,
};

/* ---- Adding up ---- */

PyDoc_STRVAR(add_up_doc,
             "add_up(events, places, recent, old, identities, accepted_places, windows, newest_us)\n--\n\n"
             "Add events nobody has seen before to `windows`; the same as `streams.domain.add_up.add_up`.");

static PyObject *add_up(PyObject *module, PyObject *args) {
    PyObject *events, *places, *recent, *old, *identities, *accepted, *windows;
    long long newest;
    (void)module;
    if (!PyArg_ParseTuple(args, "O!O!O!O!O!O!O!L", &PyList_Type, &events, &PyList_Type, &places, &PyDict_Type, &recent,
                          &PyDict_Type, &old, &PyDict_Type, &identities, &PyList_Type, &accepted, &PyDict_Type, &windows,
                          &newest))
        return NULL;
    Py_ssize_t duplicates = 0, any_old = PyDict_GET_SIZE(old);
    PyObject *twins = PyList_New(0), *sampled = PyList_New(0), *one = PyLong_FromLong(1);
    PyObject *key = NULL, *start = NULL, *total = NULL, *fresh = NULL;
    if (twins == NULL || sampled == NULL || one == NULL) goto failed;
    if (PyList_GET_SIZE(events) != PyList_GET_SIZE(places)) {
        PyErr_SetString(PyExc_ValueError, "an event without a place");
        goto failed;
    }
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(events); i++) {
        PyObject *event = PyList_GET_ITEM(events, i), *place = PyList_GET_ITEM(places, i);
        PyObject *tenant = PyTuple_GET_ITEM(event, 0), *identity = PyTuple_GET_ITEM(event, 2);
        PyObject *digest = PyTuple_GET_ITEM(event, 3), *measures = PyTuple_GET_ITEM(event, 4);
        PyObject *known = PyDict_GetItemWithError(recent, identity);
        if (known == NULL && !PyErr_Occurred()) known = PyDict_GetItemWithError(identities, identity);
        if (known == NULL && any_old && !PyErr_Occurred()) {
            PyObject *number = PyLong_FromSsize_t(i);
            if (number == NULL) goto failed;
            known = PyDict_GetItemWithError(old, number);
            Py_DECREF(number);
        }
        if (known != NULL) {
            int same = PyObject_RichCompareBool(known, digest, Py_EQ);
            if (same < 0) goto failed;
            if (same) duplicates++;
            else if (PyList_Append(twins, place) < 0) goto failed;
            continue;
        }
        if (PyErr_Occurred() || PyDict_SetItem(identities, identity, digest) < 0 || PyList_Append(accepted, place) < 0)
            goto failed;
        if (PyTuple_GET_SIZE(event) > 5) { /* it has samples */
            PyObject *number = PyLong_FromSsize_t(i);
            int failed = number == NULL || PyList_Append(sampled, number) < 0;
            Py_XDECREF(number);
            if (failed) goto failed;
        }
        long long time_us = PyLong_AsLongLong(PyTuple_GET_ITEM(event, 1));
        if (time_us == -1 && PyErr_Occurred()) goto failed;
        if (time_us > newest) newest = time_us;
        if ((start = PyLong_FromLongLong(time_us / 60000000 * 60)) == NULL) goto failed;
        for (Py_ssize_t k = 0; k < PyList_GET_SIZE(measures); k++) {
            PyObject *measure = PyList_GET_ITEM(measures, k), *quantity = PyTuple_GET_ITEM(measure, 2);
            key = PyTuple_Pack(4, tenant, PyTuple_GET_ITEM(measure, 0), PyTuple_GET_ITEM(measure, 1), start);
            if (key == NULL) goto failed;
            PyObject *cell = PyDict_GetItemWithError(windows, key);
            if (cell == NULL) {
                if (PyErr_Occurred() || (fresh = PyList_New(2)) == NULL) goto failed;
                Py_INCREF(quantity);
                Py_INCREF(one);
                PyList_SET_ITEM(fresh, 0, quantity);
                PyList_SET_ITEM(fresh, 1, one);
                if (PyDict_SetItem(windows, key, fresh) < 0) goto failed;
                Py_CLEAR(fresh);
            } else {
                for (int part = 0; part < 2; part++) {
                    total = PyNumber_Add(PyList_GET_ITEM(cell, part), part ? one : quantity);
                    if (total == NULL || PyList_SetItem(cell, part, total) < 0) goto failed;
                    total = NULL;
                }
            }
            Py_CLEAR(key);
        }
        Py_CLEAR(start);
    }
    Py_DECREF(one);
    return Py_BuildValue("nLNN", duplicates, newest, twins, sampled);
failed:
    Py_XDECREF(twins);
    Py_XDECREF(sampled);
    Py_XDECREF(one);
    Py_XDECREF(key);
    Py_XDECREF(start);
    Py_XDECREF(fresh);
    return NULL;
}

/* ---- Folding ---- */

PyDoc_STRVAR(fold_doc,
             "fold(measured, cells, closed_before, segment, received_ms, Cell, WindowRow, LateRow)\n--\n\n"
             "Add a micro-batch's sums to `cells`; the same as `streams.domain.fold.fold`.");

static PyObject *NAME_SEGMENT, *NAME_QUANTITY, *NAME_EVENTS, *NAME_TOUCHED;
#define SLOT_SECONDS 900
#define RECENT_SUMS 256

/* Adds to the sum [quantity, events], a list of two. */
static int add_to_sum(PyObject *sum, PyObject *quantity, PyObject *events) {
    for (int part = 0; part < 2; part++) {
        PyObject *total = PyNumber_Add(PyList_GET_ITEM(sum, part), part ? events : quantity);
        if (total == NULL || PyList_SetItem(sum, part, total) < 0) return -1;
    }
    return 0;
}

/* Adds to a cell's attribute and returns the new total, NULL with an error set. */
static PyObject *add_to_attribute(PyObject *cell, PyObject *name, PyObject *by) {
    PyObject *before = PyObject_GetAttr(cell, name);
    PyObject *after = before ? PyNumber_Add(before, by) : NULL;
    Py_XDECREF(before);
    if (after != NULL && PyObject_SetAttr(cell, name, after) < 0) Py_CLEAR(after);
    return after;
}

/* The row of a window after its cell was added to (or opened); NULL with an error set. */
static PyObject *fold_window(PyObject *cells, PyObject *key, PyObject *quantity, PyObject *events, PyObject *segment,
                             PyObject *received, PyObject *cell_type, PyObject *row_type) {
    PyObject *row = NULL, *text = NULL, *total = NULL, *count = NULL, *opened = NULL;
    PyObject *cell = PyDict_GetItemWithError(cells, key);
    if (cell == NULL) {
        if (PyErr_Occurred()) return NULL;
        PyObject *parts[4] = {segment, quantity, events, received};
        cell = PyObject_Vectorcall(cell_type, parts, 4, NULL);
        if (cell == NULL || PyDict_SetItem(cells, key, cell) < 0) goto done;
        total = Py_NewRef(quantity);
        count = Py_NewRef(events);
        opened = Py_NewRef(segment);
    } else {
        Py_INCREF(cell);
        if ((total = add_to_attribute(cell, NAME_QUANTITY, quantity)) == NULL) goto done;
        if ((count = add_to_attribute(cell, NAME_EVENTS, events)) == NULL) goto done;
        if (PyObject_SetAttr(cell, NAME_TOUCHED, received) < 0) goto done;
        if ((opened = PyObject_GetAttr(cell, NAME_SEGMENT)) == NULL) goto done;
    }
    if ((text = PyObject_Str(total)) != NULL) {
        PyObject *parts[7] = {PyTuple_GET_ITEM(key, 0), PyTuple_GET_ITEM(key, 1), PyTuple_GET_ITEM(key, 2),
                              PyTuple_GET_ITEM(key, 3), opened, text, count};
        row = PyObject_Vectorcall(row_type, parts, 7, NULL);
    }
done:
    Py_XDECREF(cell);
    Py_XDECREF(text);
    Py_XDECREF(total);
    Py_XDECREF(count);
    Py_XDECREF(opened);
    return row;
}

/* Sums that were added to lately, by their names' addresses: all are kept alive by `measured` and `slots`. */
typedef struct {
    PyObject *tenant, *meter, *sum;
    long long number;
} RecentSum;

static int fold_slot(PyObject *slots, RecentSum *recent, PyObject *key, long long start, PyObject *quantity,
                     PyObject *events) {
    PyObject *tenant = PyTuple_GET_ITEM(key, 0), *meter = PyTuple_GET_ITEM(key, 1);
    long long number = start / SLOT_SECONDS - (start % SLOT_SECONDS < 0);
    RecentSum *place = &recent[((uintptr_t)tenant / 16 * 31 + (uintptr_t)meter / 16 + (uintptr_t)number) % RECENT_SUMS];
    if (place->sum != NULL && place->tenant == tenant && place->meter == meter && place->number == number)
        return add_to_sum(place->sum, quantity, events);
    PyObject *slot_key = Py_BuildValue("(OOL)", tenant, meter, number);
    if (slot_key == NULL) return -1;
    int result = -1;
    PyObject *sum = PyDict_GetItemWithError(slots, slot_key);
    if (sum != NULL) {
        result = add_to_sum(sum, quantity, events);
    } else if (!PyErr_Occurred() && (sum = Py_BuildValue("[OO]", quantity, events)) != NULL) {
        result = PyDict_SetItem(slots, slot_key, sum);
        Py_DECREF(sum);
    }
    Py_DECREF(slot_key);
    if (result == 0) *place = (RecentSum){tenant, meter, sum, number};
    return result;
}

static PyObject *fold(PyObject *module, PyObject *args) {
    PyObject *measured, *cells, *closed_before, *segment, *received, *cell_type, *row_type, *late_type;
    (void)module;
    if (!PyArg_ParseTuple(args, "O!O!O!O!O!OOO", &PyDict_Type, &measured, &PyDict_Type, &cells, &PyDict_Type,
                          &closed_before, &PyLong_Type, &segment, &PyLong_Type, &received, &cell_type, &row_type,
                          &late_type))
        return NULL;
    RecentSum recent[RECENT_SUMS] = {0};
    PyObject *rows = PyList_New(0), *late = PyList_New(0), *slots = PyDict_New();
    PyObject *key = NULL, *quantity = NULL, *events = NULL, *sum;
    Py_ssize_t position = 0;
    if (rows == NULL || late == NULL || slots == NULL) goto failed;
    while (PyDict_Next(measured, &position, &key, &sum)) {
        if (!PyTuple_Check(key) || PyTuple_GET_SIZE(key) != 4 || !PyList_Check(sum) || PyList_GET_SIZE(sum) != 2) {
            PyErr_SetString(PyExc_TypeError, "measured: {(tenant, meter, dimensions, start): [quantity, events]}");
            key = NULL;
            goto failed;
        }
        /* Owned, because making rows may collect garbage, and that may run any code. */
        Py_INCREF(key);
        quantity = Py_NewRef(PyList_GET_ITEM(sum, 0));
        events = Py_NewRef(PyList_GET_ITEM(sum, 1));
        long long start = PyLong_AsLongLong(PyTuple_GET_ITEM(key, 3));
        if (start == -1 && PyErr_Occurred()) goto failed;
        PyObject *closed = PyDict_GetItemWithError(closed_before, PyTuple_GET_ITEM(key, 1));
        if (closed == NULL) {
            if (!PyErr_Occurred()) PyErr_SetObject(PyExc_KeyError, PyTuple_GET_ITEM(key, 1));
            goto failed;
        }
        long long closed_start = PyLong_AsLongLong(closed);
        if (closed_start == -1 && PyErr_Occurred()) goto failed;
        PyObject *row = fold_window(cells, key, quantity, events, segment, received, cell_type, row_type);
        int kept = row == NULL ? -1 : PyList_Append(rows, row);
        Py_XDECREF(row);
        if (kept < 0) goto failed;
        if (start <= closed_start) {
            PyObject *text = PyObject_Str(quantity);
            PyObject *parts[6] = {PyTuple_GET_ITEM(key, 0), PyTuple_GET_ITEM(key, 1), PyTuple_GET_ITEM(key, 2),
                                  PyTuple_GET_ITEM(key, 3), text, events};
            PyObject *late_row = text ? PyObject_Vectorcall(late_type, parts, 6, NULL) : NULL;
            kept = late_row == NULL ? -1 : PyList_Append(late, late_row);
            Py_XDECREF(text);
            Py_XDECREF(late_row);
            if (kept < 0) goto failed;
        }
        if (fold_slot(slots, recent, key, start, quantity, events) < 0) goto failed;
        Py_CLEAR(quantity);
        Py_CLEAR(events);
        Py_CLEAR(key);
    }
    return Py_BuildValue("NNN", rows, late, slots);
failed:
    Py_XDECREF(rows);
    Py_XDECREF(late);
    Py_XDECREF(slots);
    Py_XDECREF(key);
    Py_XDECREF(quantity);
    Py_XDECREF(events);
    return NULL;
}

static PyMethodDef module_methods[] = {{"add_up", add_up, METH_VARARGS, add_up_doc},
                                       {"fold", fold, METH_VARARGS, fold_doc},
                                       {NULL, NULL, 0, NULL}};
static struct PyModuleDef module_definition = {PyModuleDef_HEAD_INIT, "reader", "Reads and adds up ordinary usage events.", -1,
                                               module_methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_reader(void) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t crc = i;
        for (int k = 0; k < 8; k++) crc = crc & 1 ? crc >> 1 ^ 0xedb88320u : crc >> 1;
        CRC[i] = crc;
    }
    NAME_VALUE = PyUnicode_InternFromString("value");
    NAME_OFFSET = PyUnicode_InternFromString("offset");
    NAME_TIMESTAMP = PyUnicode_InternFromString("timestamp");
    NAME_SEGMENT = PyUnicode_InternFromString("segment");
    NAME_QUANTITY = PyUnicode_InternFromString("quantity");
    NAME_EVENTS = PyUnicode_InternFromString("events");
    NAME_TOUCHED = PyUnicode_InternFromString("touched_ms");
    if (!NAME_SEGMENT || !NAME_QUANTITY || !NAME_EVENTS || !NAME_TOUCHED) return NULL;
    if (!NAME_VALUE || !NAME_OFFSET || !NAME_TIMESTAMP || PyType_Ready(&ReaderType) < 0) return NULL;
    PyObject *module = PyModule_Create(&module_definition);
    if (module == NULL) return NULL;
    Py_INCREF(&ReaderType);
    if (PyModule_AddObject(module, "Reader", (PyObject *)&ReaderType) < 0) {
        Py_DECREF(&ReaderType);
        Py_DECREF(module);
        return NULL;
    }
    return module;
}
