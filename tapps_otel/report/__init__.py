"""Reports for people, made from a run's history: styled lines, without a terminal."""
