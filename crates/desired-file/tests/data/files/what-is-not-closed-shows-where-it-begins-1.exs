[
  {"web", %{
    cmd: ["/run"]
