"""The commands as a user types them."""


def test_list_names_every_scenario(synquest):
    from analyzer.simulator.scenario import shipped

    shown = synquest("simulate", "--list").stdout.decode()
    assert all(name in shown for name in shipped())
    assert len(shipped()) >= 13


def test_simulate_says_what_it_wrote(synquest, tmp_path):
    done = synquest("simulate", "healthy", "-o", tmp_path / "out", "--set", "duration_s=5")
    assert done.returncode == 0
    assert b"packets in 3 captures" in done.stdout
    assert (tmp_path / "out" / "lb.pcapng").stat().st_size > 10_000


def test_mistakes_are_one_line(synquest, tmp_path):
    for words in (["simulate"], ["simulate", "nonsense", "-o", tmp_path], ["simulate", "healthy"]):
        done = synquest(*words)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1
        assert done.stderr.startswith(b"synquest: ")


def test_demo_tells_the_case(synquest, tmp_path):
    done = synquest("demo", "-o", tmp_path / "demo")
    said = " ".join(done.stdout.decode().split())
    assert done.returncode == 0, done.stderr
    assert "36,455,721 ticks behind 517740536, kept for 42.0 s" in said
    assert "[certain]" in said
    assert (tmp_path / "demo" / "report" / "report.html").stat().st_size > 10_000
