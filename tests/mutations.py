"""The mutations that :mod:`tests.mutate` cannot find by itself: rule, module, text, and the text in its place."""

TABLE: tuple[tuple[str, str, str, str], ...] = (
    # Statements.
    ("V2", "statements/encoding.py", "if not _BASE64URL.match(text):", 'if not re.match(r"[A-Za-z0-9_-]*\\Z", text):'),
    ("V6", "statements/jws.py", "        strict_json(raw)\n", "        pass\n"),
    ("V6", "statements/models.py", 'extra="forbid", strict=True', 'extra="ignore", strict=True'),
    ("V6", "statements/models.py", 'extra="forbid", strict=True', 'extra="forbid", strict=False'),
    ("V7", "statements/jws.py", 'hashlib.sha256(f"{x} {token}".encode())', "hashlib.sha256(token.encode())"),
    ("C4", "statements/verification.py", "        check_signature(token, claims.cnf.jwk.x)\n", "        pass\n"),
    ("D4", "statements/verification.py", 'not set(pattern) & set("*?[") and matches', "matches"),
    (
        "R2",
        "statements/requests.py",
        "trust, aud=aud, max_depth=max_depth)  # R2",
        "trust, aud=None, max_depth=max_depth)",
    ),
    ("R15", "statements/requests.py", "after_reset=claims.run_id != task.run_id)", "after_reset=False)"),
    ("K3", "statements/packing.py", "body[2 : 2 + size], MAX_TOKEN_BYTES)", "body[2 : 2 + size])"),
    # The gate's judgement.
    (
        "A2",
        "gate/attempt.py",
        "        tokens = read_activity_header(self.headers)  # A2\n",
        "        try:\n            tokens = read_activity_header(self.headers)\n"
        "        except StatementError:\n            tokens = None\n",
    ),
    (
        "A3",
        "gate/attempt.py",
        "            authorized = verify_request(  # A3\n",
        "            from exequatur.statements.jws import parse\n"
        "            from exequatur.statements.models import Grant, Request\n"
        "            from exequatur.statements.verification import Chain\n"
        "            authorized = (\n"
        "                lambda tokens, *_, **__: Authorized(\n"
        "                    Chain(parse(tokens[0], Grant)), parse(tokens[-1], Request), False\n"
        "                )\n"
        "            )(\n",
    ),
    (
        "A9",
        "gate/attempt.py",
        "        return self._ask(bundle, entity, self.info.activity_type, facts)  # A9\n",
        "        return replace(self._ask(bundle, entity, self.info.activity_type, facts), allowed=True)\n",
    ),
    # The activity side.
    ("F1", "gate/activity.py", "            why = gate.unavailable()\n", "            why = None\n"),
    ("F2", "gate/activity.py", "elif judgement.allowed or not attempt.enforced:", "elif True:"),
    (
        "F3",
        "gate/activity.py",
        'return judgement, await journal.append("decision", _decision(attempt, judgement))  # [F3]',
        'return judgement, Entry(0, "A" * 43)',
    ),
    (
        "F3",
        "gate/activity.py",
        "entry = await journal.append_decision(",
        'entry = (lambda body, **_: Entry(0, "A" * 43))(',
    ),
    (
        "F4",
        "gate/activity.py",
        'judgement = _rejected(judgement, "The request was already used for this run and attempt")',
        "pass",
    ),
    ("F4", "gate/activity.py", "authorized.request.digest if info.is_local else claims.jti", "claims.jti"),
    ("F4", "gate/activity.py", "recorded = recorded or judgement.allowed", "recorded = True"),
    (
        "F7",
        "gate/activity.py",
        "result = await running.run(self.next, input)",
        "result = await self.next.execute_activity(input)",
    ),
    (
        "F8",
        "gate/activity.py",
        "        self._enqueue(receipt)\n        if attempt.authorized:",
        "        if attempt.authorized:",
    ),
    ("F8", "gate/activity.py", "self._close(running, entry, _outcome_of(err))", "pass"),
    (
        "F8",
        "gate/activity.py",
        "        receipt = self._receipt(attempt, judgement, entry, outcome)\n"
        '        await self._gate.require_journal().append("receipt", receipt.text.encode())\n',
        "        receipt = self._receipt(attempt, judgement, entry, outcome)\n",
    ),
    (
        "B3",
        "gate/running.py",
        "self.judgement.epoch == self.gate.epoch and self.gate.clock() < self.judgement.until",
        "self.gate.clock() < self.judgement.until",
    ),
    (
        "B3",
        "gate/running.py",
        "self.judgement.epoch == self.gate.epoch and self.gate.clock() < self.judgement.until",
        "self.judgement.epoch == self.gate.epoch",
    ),
    ("B4", "gate/running.py", "            self._abandon(body)\n", "            pass\n"),
    # The workflow side.
    ("W1", "gate/run.py", "            return cls(gate, info, None, str(err))", "            return None"),
    (
        "W3",
        "gate/run.py",
        "        except UnknownKeyError:  # W3\n            raise\n",
        "        except UnknownKeyError as err:\n            self.fault = str(err)\n",
    ),
    (
        "W5",
        "gate/run.py",
        "            except StatementError as err:\n                return str(err)[:400]\n",
        "            except StatementError:\n                return None\n",
    ),
    ("X2", "gate/workflow.py", "            if self._run.enforced:\n", "            if False:\n"),
    (
        "X2",
        "gate/workflow.py",
        "        except StatementError as err:\n            return str(err)\n",
        "        except StatementError:\n            return None\n",
    ),
    (
        "X3",
        "gate/workflow.py",
        "if packed is None and run.recorded_queue(self._task_queue):  # X3",
        "if packed is None:",
    ),
    (
        "X3",
        "gate/workflow.py",
        "if packed is None and run.recorded_queue(self._task_queue):  # X3",
        "if run.recorded_queue(self._task_queue):",
    ),
    (
        "X4",
        "gate/workflow.py",
        "        except UnknownKeyError:  # X4\n            raise\n",
        "        except UnknownKeyError as err:\n            return str(err)\n",
    ),
    # Policy and authority.
    (
        "E4",
        "policy/engine.py",
        "bundle.policies[policy_id] for policy_id in decision.reasons]",
        "bundle.policies[policy_id] for policy_id in decision.reasons if policy_id in bundle.policies]",
    ),
    ("E5", "policy/engine.py", "except BaseException as error:", "except ZeroDivisionError as error:"),
    ("E6", "policy/engine.py", "ttl = min((info.ttl", "ttl = max((info.ttl"),
    (
        "I3",
        "authority/embedded.py",
        "start_by=float(int(started_by)),",
        "start_by=float(int(max(now + settings.grant_ttl.total_seconds(), started_by + 1))),",
    ),
    (
        "I3",
        "authority/embedded.py",
        "exp=float(int(max(now + settings.grant_ttl.total_seconds(), started_by + 1))),",
        "exp=float(int(now)) + 10**8,",
    ),
    (
        "I4",
        "authority/embedded.py",
        "exp=float(now) + settings.credential_ttl.total_seconds(),",
        "exp=float(now) + 10**8,",
    ),
    ("I4", "authority/embedded.py", "namespaces=order.namespaces,", 'namespaces=("*",),'),
    ("I4", "authority/embedded.py", "task_queues=order.task_queues,", 'task_queues=("*",),'),
    ("I4", "authority/embedded.py", "activities=order.activities,", 'activities=("*",),'),
    # Releases.
    ("J5", "release/verify.py", "return max(held, key", "return min(held, key"),
    ("J8", "release/verify.py", "bucket % 100 < release.share", "True"),
    ("J8", "release/source.py", "newer = release.sequence > stable.token.claims.sequence", "newer = True"),
    (
        "J21",
        "release/marks.py",
        "                document = self._read()\n                check_order",
        "                document = self._known or self._read()\n                check_order",
    ),
    ("J22", "release/marks.py", "except FileNotFoundError:", "except (FileNotFoundError, ValidationError):"),
    ("J24", "release/marks.py", "in self._known.items():  # [J24]", "in dict[str, dict[Channel, _Kept]]().items():"),
    ("J31", "release/source.py", "            if here and here.channel", "            if True or here.channel"),
    ("J31", "release/source.py", "            if here and here.channel", "            if False and here.channel"),
    ("J31", "release/source.py", " and newer and self._clock() < self._ends:", " and newer:"),
    ("J32", "release/source.py", "if current is not None or self._cache is None:", "if True:"),
    (
        "J32",
        "release/source.py",
        "offer = self._offer(cache, None)  # [J32]",
        "offer = Offer(PolicyBundle(BundleFile.read(cache.read('stable') or b'', '').open('').source), None)",
    ),
    (
        "J33",
        "release/source.py",
        "trust = read_policy_keys(self._keys)  # [J33]",
        "trust = self.__dict__.setdefault('once', read_policy_keys(self._keys))",
    ),
    (
        "J53",
        "release/pushing.py",
        "    except PolicyError:  # [J53]\n",
        "    except PolicyError:\n        return True\n",
    ),
    ("J61", "release/web.py", "asyncio.timeout(DEADLINE):  # [J61]", "asyncio.timeout(None):"),
    ("J65", "release/web.py", "  # [J65]\n        held.etag = None", "\n        held.etag = etag"),
    (
        "J66",
        "release/web.py",
        "return bool(held.partial) and begins and etag in (None, held.partial_etag)",
        "return True",
    ),
    (
        "J67",
        "release/web.py",
        'condition = {"If-None-Match": "*"} if there is None else',
        "condition = {} if True else",
    ),
    (
        "J67",
        "release/web.py",
        "if there is not None and (held.etag is None or held.etag.startswith",
        "if False and (held.etag is None or held.etag.startswith",
    ),
)
