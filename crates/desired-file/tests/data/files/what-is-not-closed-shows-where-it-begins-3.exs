[
  {"web, %{
    cmd: []}}
]
