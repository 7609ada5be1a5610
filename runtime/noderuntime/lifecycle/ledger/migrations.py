"""The ledger's schema, step by step; see :class:`noderuntime.core.database.Database`."""

from __future__ import annotations

STEPS = (
    """
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
    CREATE TABLE sandboxes (
        id TEXT PRIMARY KEY, handler TEXT NOT NULL, config BLOB NOT NULL,
        created_at INTEGER NOT NULL, ready_at INTEGER NOT NULL, stopped_at INTEGER NOT NULL,
        netns TEXT NOT NULL, ips TEXT NOT NULL, cni_result BLOB NOT NULL,
        root TEXT, monitor TEXT, released_at INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE containers (
        id TEXT PRIMARY KEY, sandbox_id TEXT NOT NULL, config BLOB NOT NULL,
        created_at INTEGER NOT NULL, image_id TEXT NOT NULL, image_name TEXT NOT NULL,
        log_path TEXT NOT NULL, process TEXT, monitor TEXT,
        prepared_at INTEGER NOT NULL, starting INTEGER NOT NULL, started_at INTEGER NOT NULL,
        stopping_at INTEGER NOT NULL, finished_at INTEGER NOT NULL,
        released_at INTEGER NOT NULL, exit_code INTEGER NOT NULL, oom_killed INTEGER NOT NULL,
        start_error TEXT NOT NULL, lost INTEGER NOT NULL, stop_signal INTEGER NOT NULL,
        user BLOB NOT NULL, resources BLOB NOT NULL
    ) STRICT;
    """,
    "ALTER TABLE containers ADD COLUMN volume_images TEXT NOT NULL DEFAULT '[]';",
    "ALTER TABLE containers ADD COLUMN pod_oom_kills INTEGER NOT NULL DEFAULT 0;",
    """
    ALTER TABLE containers ADD COLUMN image_ref TEXT NOT NULL DEFAULT '';
    UPDATE containers SET image_ref = image_id;
    """,
    "ALTER TABLE containers ADD COLUMN killed_at INTEGER NOT NULL DEFAULT 0;",
    "ALTER TABLE containers ADD COLUMN updating BLOB NOT NULL DEFAULT x'';",
    "ALTER TABLE containers ADD COLUMN checkpointing_at INTEGER NOT NULL DEFAULT 0;",
)
