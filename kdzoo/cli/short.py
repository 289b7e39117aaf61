def distill() -> int:
    """TODO"""
    return 0
