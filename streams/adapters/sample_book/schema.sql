-- The sample book of one source partition. Values and steps are 12 bytes, big-endian, moved up so that they sort as the
-- numbers they are; sums that may exceed 64 bits are decimal texts. Offset and index are the place of an event.

CREATE TABLE facts (name TEXT PRIMARY KEY, value ANY) STRICT, WITHOUT ROWID;

CREATE TABLE meters (
    id          INTEGER PRIMARY KEY,
    tenant      TEXT NOT NULL,
    meter       TEXT NOT NULL,
    aggregation TEXT NOT NULL,
    horizon_us  INTEGER NOT NULL DEFAULT 0,
    level       TEXT NOT NULL DEFAULT '0',
    UNIQUE (tenant, meter)
) STRICT;

CREATE TABLE series (
    id         INTEGER PRIMARY KEY,
    meter      INTEGER NOT NULL,
    dimensions TEXT NOT NULL,
    base       TEXT NOT NULL DEFAULT '0',
    UNIQUE (meter, dimensions)
) STRICT;

-- Clustered by meter and time: a period's samples lie side by side.
CREATE TABLE texts (
    meter    INTEGER NOT NULL,
    time_us  INTEGER NOT NULL,
    "offset" INTEGER NOT NULL,
    "index"  INTEGER NOT NULL,
    text     BLOB NOT NULL,
    PRIMARY KEY (meter, time_us, "offset", "index")
) STRICT, WITHOUT ROWID;

-- In which quarter hours a text was seen, and in how many samples.
CREATE TABLE text_slots (
    meter   INTEGER NOT NULL,
    text    BLOB NOT NULL,
    slot    INTEGER NOT NULL,
    samples INTEGER NOT NULL,
    PRIMARY KEY (meter, text, slot)
) STRICT, WITHOUT ROWID;

CREATE TABLE numbers (
    meter    INTEGER NOT NULL,
    time_us  INTEGER NOT NULL,
    "offset" INTEGER NOT NULL,
    "index"  INTEGER NOT NULL,
    value    BLOB NOT NULL,
    PRIMARY KEY (meter, time_us, "offset", "index")
) STRICT, WITHOUT ROWID;

CREATE TABLE levels (
    meter    INTEGER NOT NULL,
    time_us  INTEGER NOT NULL,
    "offset" INTEGER NOT NULL,
    "index"  INTEGER NOT NULL,
    value    BLOB NOT NULL,
    series   INTEGER NOT NULL,
    step     BLOB NOT NULL,
    PRIMARY KEY (meter, time_us, "offset", "index")
) STRICT, WITHOUT ROWID;
CREATE INDEX levels_by_series ON levels (series, time_us, "offset", "index");

CREATE TABLE totals (
    meter    INTEGER NOT NULL,
    end_us   INTEGER NOT NULL,
    name     TEXT NOT NULL,
    start_us INTEGER NOT NULL,
    events   INTEGER NOT NULL,
    quantity TEXT NOT NULL,
    at_us    INTEGER NOT NULL,
    "offset" INTEGER NOT NULL,
    "index"  INTEGER NOT NULL,
    carry    TEXT NOT NULL,
    net      TEXT NOT NULL,
    moment   TEXT NOT NULL,
    PRIMARY KEY (meter, end_us, name)
) STRICT, WITHOUT ROWID;
