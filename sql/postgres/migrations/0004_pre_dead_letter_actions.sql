-- What people did about dead letters; the letters themselves stay on their topics. A letter without a row that is done
-- is open. A replay is written down before its record is sent and done when the broker has it: a crash in between
-- leaves it open, and sending it again is safe, because the identity of the event counts once.
CREATE TABLE dead_letter_actions (
    action_id          uuid PRIMARY KEY,
    topic              text NOT NULL,
    partition          integer NOT NULL CHECK (partition >= 0),
    letter_offset      bigint NOT NULL CHECK (letter_offset >= 0),
    kind               text NOT NULL CHECK (kind IN ('replay', 'discard')),
    code               text NOT NULL,
    letter_at          timestamptz NOT NULL,
    actor              text NOT NULL CHECK (actor <> ''),
    reason             text NOT NULL DEFAULT '',
    -- SHA-256 of the letter's body, and of what was sent: they differ where a person mended it.
    letter_sha256      text NOT NULL,
    sent_sha256        text,
    sent_topic         text,
    sent_partition     integer,
    sent_offset        bigint,
    begun_at           timestamptz NOT NULL,
    done_at            timestamptz,
    CHECK (kind <> 'discard' OR (done_at IS NOT NULL AND reason <> '')),
    CHECK ((kind = 'replay') = (sent_sha256 IS NOT NULL)),
    CHECK ((kind = 'replay' AND done_at IS NOT NULL) = (sent_offset IS NOT NULL))
);
CREATE INDEX dead_letter_actions_by_letter ON dead_letter_actions (topic, partition, letter_offset);

-- How many letters of each code a topic got on each day, and up to which offset they were counted: so that counting
-- a million letters again reads only the new ones.
CREATE TABLE dead_letter_tallies (
    topic              text NOT NULL,
    partition          integer NOT NULL,
    code               text NOT NULL,
    day                date NOT NULL,
    letters            bigint NOT NULL CHECK (letters > 0),
    PRIMARY KEY (topic, partition, code, day)
);
CREATE TABLE dead_letter_tally_progress (
    topic              text NOT NULL,
    partition          integer NOT NULL,
    next_offset        bigint NOT NULL,
    PRIMARY KEY (topic, partition)
);
