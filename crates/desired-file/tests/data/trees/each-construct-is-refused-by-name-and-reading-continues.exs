[
  a: System.get_env("X"), b: get("x", 1), c: Mod.fun, d: get "x",
  e: "a" <> "b", f: "x#{y}z", g: [1] ++ [2], h: 1..3, i: 1 + 2, j: not true,
  k: name, l: Mod, m: @attr, n: fn a, b -> a end, o: &(&1 + 1), p: %User{id: 1},
  q: %{base | a: 1}, r: <<1, 2>>, s: ("x"), t: 'chars', u: ?a, v: ~r/x/, w: ~w(a b)c,
  x: if(a, do: 1, else: 2), y: if a, do: 1, else: 2,
  z: "a" |> String.upcase(), last: null
]