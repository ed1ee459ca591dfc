"""Pure maths of positions: no file, no model, no log, no global.

In reading order:
frequencies    θ_j = base^(−2j/d): the inverse frequencies everything starts from
interpolate    m -> m·L/L': Position Interpolation as the paper writes it, on positions
rotate         cos and sin by position, and the rotation in both layouts in use
scaling        METHODS: one function a method, from (d, base, L, L') to inverse frequencies
banded         the methods that treat fast and slow frequencies differently
bounds         the paper's theorem: attention score by distance, its bounds, right and wrong
scores         the same picture from the queries and keys of a real head
"""
