"""The first tables, and the project of a service without keys.

Revision: 0001, the first
"""

from __future__ import annotations

import time
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
HASH = sa.LargeBinary(length=32)
JSON_VALUE = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")

TABLES = (
    "devices",
    "projects",
    "targets",
    "workers",
    "workloads",
    "api_keys",
    "artifacts",
    "audit",
    "device_targets",
    "hardware_facts",
    "idempotency_keys",
    "labels",
    "cost_models",
    "networks",
    "jobs",
    "network_tasks",
    "records",
    "builds",
    "events",
    "steps",
    "tasks",
    "measurements",
)
"""In the order of creation: a table after those that it refers to."""


def where(condition: str) -> dict[str, Any]:
    """A partial index on both databases."""
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}


def upgrade() -> None:
    op.create_table(
        "devices",
        sa.Column("key", KEY, nullable=False),
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("kind", sa.String(length=40), nullable=False),
        sa.Column("tracker_key", sa.String(length=200), nullable=True),
        sa.Column("host", sa.String(length=200), nullable=False),
        sa.Column("state", sa.String(length=40), nullable=False),
        sa.Column("owner", sa.String(length=200), nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("lease_until", sa.Double(), nullable=False),
        sa.Column("last_calibration", JSON_VALUE, nullable=True),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_devices"),
        sa.UniqueConstraint("id", name="uq_devices_id"),
        sa.UniqueConstraint("name", name="uq_devices_name"),
    )
    op.create_table(
        "projects",
        sa.Column("key", KEY, nullable=False),
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_projects"),
        sa.UniqueConstraint("id", name="uq_projects_id"),
        sa.UniqueConstraint("name", name="uq_projects_name"),
    )
    op.create_table(
        "targets",
        sa.Column("key", KEY, nullable=False),
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("identity", HASH, nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("spec", JSON_VALUE, nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_targets"),
        sa.UniqueConstraint("id", name="uq_targets_id"),
        sa.UniqueConstraint("identity", name="uq_targets_identity"),
        sa.UniqueConstraint("name", name="uq_targets_name"),
    )
    op.create_table(
        "workers",
        sa.Column("key", KEY, nullable=False),
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("host", sa.String(length=200), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("version", sa.String(length=40), nullable=False),
        sa.Column("schema", sa.String(length=40), nullable=False),
        sa.Column("draining", sa.Boolean(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("last_seen", sa.Double(), nullable=False),
        sa.Column("stopped_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("key", name="pk_workers"),
        sa.UniqueConstraint("id", name="uq_workers_id"),
    )
    op.create_index("ix_workers_host", "workers", ["host"])
    op.create_index("ix_workers_last_seen", "workers", ["last_seen"])
    op.create_table(
        "workloads",
        sa.Column("key", KEY, nullable=False),
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("sha256", HASH, nullable=False),
        sa.Column("version_free_key", HASH, nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("module", sa.LargeBinary(), nullable=False),
        sa.Column("flops", sa.Double(), nullable=False),
        sa.Column("args", JSON_VALUE, nullable=False),
        sa.Column("output_count", sa.Integer(), nullable=False),
        sa.Column("tvm_version", sa.String(length=40), nullable=False),
        sa.Column("pipeline_version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_workloads"),
        sa.UniqueConstraint("id", name="uq_workloads_id"),
        sa.UniqueConstraint("sha256", name="uq_workloads_sha256"),
    )
    op.create_index("ix_workloads_version_free_key", "workloads", ["version_free_key"])
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("secret_sha256", HASH, nullable=False),
        sa.Column("scopes", JSON_VALUE, nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=True),
        sa.Column("revoked_at", sa.Double(), nullable=True),
        sa.Column("last_used_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_api_keys_project_id"),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
        sa.UniqueConstraint("secret_sha256", name="uq_api_keys_secret_sha256"),
    )
    op.create_index("ix_api_keys_project_id", "api_keys", ["project_id"])
    op.create_table(
        "artifacts",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("sha256", HASH, nullable=False),
        sa.Column("kind", sa.String(length=40), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("uri", sa.Text(), nullable=False),
        sa.Column("owner", sa.String(length=40), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_artifacts_project_id"),
        sa.PrimaryKeyConstraint("id", name="pk_artifacts"),
    )
    op.create_index("ix_artifacts_expires_at", "artifacts", ["expires_at"])
    op.create_index("ix_artifacts_owner", "artifacts", ["owner"])
    op.create_index("ix_artifacts_project_id", "artifacts", ["project_id"])
    op.create_index("ix_artifacts_sha256", "artifacts", ["sha256"])
    op.create_table(
        "audit",
        sa.Column("key", KEY, nullable=False),
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("principal", sa.String(length=200), nullable=False),
        sa.Column("action", sa.String(length=40), nullable=False),
        sa.Column("resource", sa.String(length=40), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("detail", JSON_VALUE, nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_audit_project_id"),
        sa.PrimaryKeyConstraint("key", name="pk_audit"),
    )
    op.create_index("ix_audit_project_id", "audit", ["project_id"])
    op.create_index("ix_audit_resource", "audit", ["resource"])
    op.create_table(
        "device_targets",
        sa.Column("device_key", KEY, nullable=False),
        sa.Column("target_key", KEY, nullable=False),
        sa.ForeignKeyConstraint(["device_key"], ["devices.key"], name="fk_device_targets_device_key"),
        sa.ForeignKeyConstraint(["target_key"], ["targets.key"], name="fk_device_targets_target_key"),
        sa.PrimaryKeyConstraint("device_key", "target_key", name="pk_device_targets"),
    )
    op.create_index("ix_device_targets_target_key", "device_targets", ["target_key"])
    op.create_table(
        "hardware_facts",
        sa.Column("key", KEY, nullable=False),
        sa.Column("target_key", KEY, nullable=False),
        sa.Column("attribute", sa.String(length=100), nullable=False),
        sa.Column("value", JSON_VALUE, nullable=False),
        sa.Column("origin", sa.String(length=40), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["target_key"], ["targets.key"], name="fk_hardware_facts_target_key"),
        sa.PrimaryKeyConstraint("key", name="pk_hardware_facts"),
    )
    op.create_index("uq_hardware_facts_version", "hardware_facts", ["target_key", "attribute", "version"], unique=True)
    op.create_table(
        "idempotency_keys",
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("body_sha256", HASH, nullable=False),
        sa.Column("state", sa.String(length=40), nullable=False),
        sa.Column("status_code", sa.Integer(), nullable=True),
        sa.Column("answer", JSON_VALUE, nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_idempotency_keys_project_id"),
        sa.PrimaryKeyConstraint("project_id", "key", name="pk_idempotency_keys"),
    )
    op.create_index("ix_idempotency_keys_expires_at", "idempotency_keys", ["expires_at"])
    op.create_table(
        "labels",
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("resource", sa.String(length=40), nullable=False),
        sa.Column("key", sa.String(length=100), nullable=False),
        sa.Column("value", sa.String(length=200), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_labels_project_id"),
        sa.PrimaryKeyConstraint("project_id", "resource", "key", name="pk_labels"),
    )
    op.create_index("ix_labels_project_id_key_value", "labels", ["project_id", "key", "value"])
    op.create_table(
        "cost_models",
        sa.Column("key", KEY, nullable=False),
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("parent_key", KEY, nullable=True),
        sa.Column("status", sa.String(length=40), nullable=False),
        sa.Column("data_fingerprint", HASH, nullable=False),
        sa.Column("feature_layout", sa.Integer(), nullable=False),
        sa.Column("artifact_id", sa.String(length=40), nullable=True),
        sa.Column("card", JSON_VALUE, nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["artifact_id"], ["artifacts.id"], name="fk_cost_models_artifact_id"),
        sa.ForeignKeyConstraint(["parent_key"], ["cost_models.key"], name="fk_cost_models_parent_key"),
        sa.PrimaryKeyConstraint("key", name="pk_cost_models"),
        sa.UniqueConstraint("id", name="uq_cost_models_id"),
    )
    op.create_index("ix_cost_models_status", "cost_models", ["status"])
    op.create_index("uq_cost_models_version", "cost_models", ["name", "version"], unique=True)
    op.create_table(
        "networks",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("content_sha256", HASH, nullable=False),
        sa.Column("shapes_sha256", HASH, nullable=False),
        sa.Column("shapes", JSON_VALUE, nullable=False),
        sa.Column("graph_key", HASH, nullable=True),
        sa.Column("state", sa.String(length=40), nullable=False),
        sa.Column("refusal", JSON_VALUE, nullable=True),
        sa.Column("inputs", JSON_VALUE, nullable=True),
        sa.Column("outputs", JSON_VALUE, nullable=True),
        sa.Column("layout", sa.String(length=40), nullable=True),
        sa.Column("layout_note", sa.Text(), nullable=True),
        sa.Column("synthetic_weights", sa.Boolean(), nullable=False),
        sa.Column("pipeline_version", sa.Integer(), nullable=True),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("artifact_id", sa.String(length=40), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.Column("deleted_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["artifact_id"], ["artifacts.id"], name="fk_networks_artifact_id"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_networks_project_id"),
        sa.PrimaryKeyConstraint("id", name="pk_networks"),
    )
    op.create_index("ix_networks_graph_key", "networks", ["graph_key"])
    op.create_index(
        "uq_networks_content",
        "networks",
        ["project_id", "content_sha256", "shapes_sha256"],
        unique=True,
        **where("deleted_at IS NULL"),
    )
    op.create_index("uq_networks_name", "networks", ["project_id", "name"], unique=True, **where("deleted_at IS NULL"))
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("network_id", sa.String(length=40), nullable=False),
        sa.Column("target_key", KEY, nullable=False),
        sa.Column("state", sa.String(length=40), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("budget_trials", sa.Integer(), nullable=True),
        sa.Column("budget_s", sa.Double(), nullable=True),
        sa.Column("trials", sa.Integer(), nullable=False),
        sa.Column("searched_s", sa.Double(), nullable=False),
        sa.Column("deadline", sa.Double(), nullable=True),
        sa.Column("seed", KEY, nullable=False),
        sa.Column("options", JSON_VALUE, nullable=True),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False),
        sa.Column("stop_reason", sa.String(length=100), nullable=True),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("untuned_latency_s", sa.Double(), nullable=True),
        sa.Column("best_latency_s", sa.Double(), nullable=True),
        sa.Column("build_id", sa.String(length=40), nullable=True),
        sa.Column("event_sequence", KEY, nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=True),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["network_id"], ["networks.id"], name="fk_jobs_network_id"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_jobs_project_id"),
        sa.ForeignKeyConstraint(["target_key"], ["targets.key"], name="fk_jobs_target_key"),
        sa.PrimaryKeyConstraint("id", name="pk_jobs"),
    )
    op.create_index("ix_jobs_network_id", "jobs", ["network_id"])
    op.create_index("ix_jobs_project_id", "jobs", ["project_id"])
    op.create_index("ix_jobs_state", "jobs", ["state"])
    op.create_index("ix_jobs_target_key", "jobs", ["target_key"])
    op.create_table(
        "network_tasks",
        sa.Column("network_id", sa.String(length=40), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("workload_key", KEY, nullable=False),
        sa.Column("weight", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["network_id"], ["networks.id"], name="fk_network_tasks_network_id"),
        sa.ForeignKeyConstraint(["workload_key"], ["workloads.key"], name="fk_network_tasks_workload_key"),
        sa.PrimaryKeyConstraint("network_id", "position", name="pk_network_tasks"),
    )
    op.create_index("ix_network_tasks_workload_key", "network_tasks", ["workload_key"])
    op.create_table(
        "records",
        sa.Column("key", KEY, nullable=False),
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("target_key", KEY, nullable=False),
        sa.Column("workload_key", KEY, nullable=False),
        sa.Column("schedule_sha256", HASH, nullable=False),
        sa.Column("module_sha256", HASH, nullable=True),
        sa.Column("trace", sa.LargeBinary(), nullable=False),
        sa.Column("status", sa.String(length=40), nullable=False),
        sa.Column("latency_s", sa.Double(), nullable=True),
        sa.Column("quality", sa.String(length=40), nullable=True),
        sa.Column("invalidity", sa.String(length=40), nullable=True),
        sa.Column("permanent", sa.Boolean(), nullable=False),
        sa.Column("transient_failures", sa.Integer(), nullable=False),
        sa.Column("measurement_count", sa.Integer(), nullable=False),
        sa.Column("source", sa.String(length=40), nullable=False),
        sa.Column("source_record_key", KEY, nullable=True),
        sa.Column("origin_project_key", KEY, nullable=False),
        sa.Column("visibility", sa.String(length=40), nullable=False),
        sa.Column("model_key", KEY, nullable=True),
        sa.Column("predicted_score", sa.Double(), nullable=True),
        sa.Column("withdrawn_reason", sa.Text(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["model_key"], ["cost_models.key"], name="fk_records_model_key"),
        sa.ForeignKeyConstraint(["origin_project_key"], ["projects.key"], name="fk_records_origin_project_key"),
        sa.ForeignKeyConstraint(["source_record_key"], ["records.key"], name="fk_records_source_record_key"),
        sa.ForeignKeyConstraint(["target_key"], ["targets.key"], name="fk_records_target_key"),
        sa.ForeignKeyConstraint(["workload_key"], ["workloads.key"], name="fk_records_workload_key"),
        sa.PrimaryKeyConstraint("key", name="pk_records"),
        sa.UniqueConstraint("id", name="uq_records_id"),
    )
    op.create_index(
        "ix_records_best",
        "records",
        ["target_key", "workload_key", "quality", "latency_s"],
        **where("status = 'valid' AND latency_s IS NOT NULL"),
    )
    op.create_index("ix_records_default", "records", ["target_key", "workload_key"], **where("source = 'default'"))
    op.create_index("ix_records_newest", "records", ["target_key", "key"])
    op.create_index("ix_records_workload_key", "records", ["workload_key"])
    op.create_index("uq_records_schedule", "records", ["target_key", "workload_key", "schedule_sha256"], unique=True)
    op.create_table(
        "builds",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("network_id", sa.String(length=40), nullable=False),
        sa.Column("target_key", KEY, nullable=False),
        sa.Column("job_id", sa.String(length=40), nullable=True),
        sa.Column("state", sa.String(length=40), nullable=False),
        sa.Column("tvm_version", sa.String(length=40), nullable=True),
        sa.Column("schedules", JSON_VALUE, nullable=False),
        sa.Column("manifest", JSON_VALUE, nullable=True),
        sa.Column("artifact_id", sa.String(length=40), nullable=True),
        sa.Column("tuned_latency_s", sa.Double(), nullable=True),
        sa.Column("untuned_latency_s", sa.Double(), nullable=True),
        sa.Column("reference_latency_s", sa.Double(), nullable=True),
        sa.Column("largest_error", sa.Double(), nullable=True),
        sa.Column("refused", sa.Text(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("finished_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["artifact_id"], ["artifacts.id"], name="fk_builds_artifact_id"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_builds_job_id"),
        sa.ForeignKeyConstraint(["network_id"], ["networks.id"], name="fk_builds_network_id"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_builds_project_id"),
        sa.ForeignKeyConstraint(["target_key"], ["targets.key"], name="fk_builds_target_key"),
        sa.PrimaryKeyConstraint("id", name="pk_builds"),
    )
    op.create_index("ix_builds_job_id", "builds", ["job_id"])
    op.create_index("ix_builds_network_id", "builds", ["network_id"])
    op.create_index("ix_builds_project_id", "builds", ["project_id"])
    op.create_index("ix_builds_target_key", "builds", ["target_key"])
    op.create_table(
        "events",
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("sequence", KEY, nullable=False),
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("kind", sa.String(length=40), nullable=False),
        sa.Column("data", JSON_VALUE, nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_events_job_id"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_events_project_id"),
        sa.PrimaryKeyConstraint("job_id", "sequence", name="pk_events"),
    )
    op.create_index("ix_events_created_at", "events", ["created_at"])
    op.create_table(
        "steps",
        sa.Column("key", KEY, nullable=False),
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("kind", sa.String(length=40), nullable=False),
        sa.Column("queue", sa.String(length=100), nullable=False),
        sa.Column("state", sa.String(length=40), nullable=False),
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("job_id", sa.String(length=40), nullable=True),
        sa.Column("target_key", KEY, nullable=True),
        sa.Column("workload_key", KEY, nullable=True),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("released", sa.Integer(), nullable=False),
        sa.Column("owner", sa.String(length=200), nullable=True),
        sa.Column("lease_until", sa.Double(), nullable=False),
        sa.Column("not_before", sa.Double(), nullable=False),
        sa.Column("announced_until", sa.Double(), nullable=False),
        sa.Column("last_exit", sa.Text(), nullable=True),
        sa.Column("input", JSON_VALUE, nullable=False),
        sa.Column("subject", sa.String(length=40), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=True),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_steps_job_id"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_steps_project_id"),
        sa.ForeignKeyConstraint(["target_key"], ["targets.key"], name="fk_steps_target_key"),
        sa.ForeignKeyConstraint(["workload_key"], ["workloads.key"], name="fk_steps_workload_key"),
        sa.PrimaryKeyConstraint("key", name="pk_steps"),
        sa.UniqueConstraint("id", name="uq_steps_id"),
    )
    op.create_index("ix_steps_job_id", "steps", ["job_id"])
    op.create_index("ix_steps_live", "steps", ["state", "announced_until"], **where("state IN ('queued', 'running')"))
    op.create_index("ix_steps_subject", "steps", ["subject"])
    op.create_index(
        "uq_steps_live_round",
        "steps",
        ["target_key", "workload_key"],
        unique=True,
        **where("state = 'running' AND kind = 'round'"),
    )
    op.create_table(
        "tasks",
        sa.Column("key", KEY, nullable=False),
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("workload_key", KEY, nullable=False),
        sa.Column("weight", sa.Integer(), nullable=False),
        sa.Column("trials", sa.Integer(), nullable=False),
        sa.Column("rounds", sa.Integer(), nullable=False),
        sa.Column("searched_s", sa.Double(), nullable=False),
        sa.Column("best_latency_s", sa.Double(), nullable=True),
        sa.Column("default_latency_s", sa.Double(), nullable=True),
        sa.Column("exhausted", sa.Boolean(), nullable=False),
        sa.Column("history", JSON_VALUE, nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_tasks_job_id"),
        sa.ForeignKeyConstraint(["workload_key"], ["workloads.key"], name="fk_tasks_workload_key"),
        sa.PrimaryKeyConstraint("key", name="pk_tasks"),
    )
    op.create_index("ix_tasks_workload_key", "tasks", ["workload_key"])
    op.create_index("uq_tasks_position", "tasks", ["job_id", "position"], unique=True)
    op.create_index("uq_tasks_workload", "tasks", ["job_id", "workload_key"], unique=True)
    op.create_table(
        "measurements",
        sa.Column("key", KEY, nullable=False),
        sa.Column("record_key", KEY, nullable=False),
        sa.Column("device_key", KEY, nullable=True),
        sa.Column("worker_key", KEY, nullable=True),
        sa.Column("step_key", KEY, nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("conditions", JSON_VALUE, nullable=False),
        sa.Column("latencies", JSON_VALUE, nullable=False),
        sa.Column("latency_s", sa.Double(), nullable=True),
        sa.Column("quality", sa.String(length=40), nullable=False),
        sa.Column("status", sa.String(length=40), nullable=False),
        sa.Column("invalidity", sa.String(length=40), nullable=True),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("features", sa.LargeBinary(), nullable=True),
        sa.Column("feature_layout", sa.Integer(), nullable=True),
        sa.Column("measured_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["device_key"], ["devices.key"], name="fk_measurements_device_key"),
        sa.ForeignKeyConstraint(["record_key"], ["records.key"], name="fk_measurements_record_key"),
        sa.ForeignKeyConstraint(["step_key"], ["steps.key"], name="fk_measurements_step_key"),
        sa.ForeignKeyConstraint(["worker_key"], ["workers.key"], name="fk_measurements_worker_key"),
        sa.PrimaryKeyConstraint("key", name="pk_measurements"),
    )
    op.create_index("ix_measurements_record_key", "measurements", ["record_key"])
    op.create_index("ix_measurements_step_key", "measurements", ["step_key"])
    projects = sa.table("projects", sa.column("id"), sa.column("name"), sa.column("created_at"))
    op.bulk_insert(projects, [{"id": "default", "name": "default", "created_at": time.time()}])


def downgrade() -> None:
    for table in reversed(TABLES):
        op.drop_table(table)
