"""The tries of a pair: their records on disk, their life from launch to promotion, and recovery after a dead launch."""
