"""How each measured batch was ranked.

Revision: 0002, after 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "ranking_checks",
        sa.Column("key", KEY, nullable=False),
        sa.Column("target_key", KEY, nullable=False),
        sa.Column("workload_key", KEY, nullable=False),
        sa.Column("model_key", KEY, nullable=True),
        sa.Column("step_key", KEY, nullable=True),
        sa.Column("programs", sa.Integer(), nullable=False),
        sa.Column("pairwise", sa.Double(), nullable=False),
        sa.Column("regret_top1", sa.Double(), nullable=False),
        sa.Column("regret_top5", sa.Double(), nullable=False),
        sa.Column("checked_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["model_key"], ["cost_models.key"], name="fk_ranking_checks_model_key"),
        sa.ForeignKeyConstraint(["step_key"], ["steps.key"], name="fk_ranking_checks_step_key"),
        sa.ForeignKeyConstraint(["target_key"], ["targets.key"], name="fk_ranking_checks_target_key"),
        sa.ForeignKeyConstraint(["workload_key"], ["workloads.key"], name="fk_ranking_checks_workload_key"),
        sa.PrimaryKeyConstraint("key", name="pk_ranking_checks"),
    )
    op.create_index("ix_ranking_checks_newest", "ranking_checks", ["target_key", "key"])


def downgrade() -> None:
    op.drop_table("ranking_checks")
