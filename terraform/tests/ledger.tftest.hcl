# What happens to a ledger that exists.

mock_provider "aws" {
  source = "./tests/mocks"
}

run "created" {
  assert {
    condition     = aws_elasticache_replication_group.ledger[0].engine_version == "8.0" && aws_elasticache_replication_group.ledger[0].auto_minor_version_upgrade == "true"
    error_message = "AWS upgrades it"
  }

  assert {
    condition     = can(regex("^relay-ledger-[0-9]{14}$", aws_elasticache_replication_group.ledger[0].final_snapshot_identifier))
    error_message = "a final snapshot, whose name no other ledger has"
  }
}

run "another_version_is_left_alone" {
  command = plan

  variables {
    cache_engine_version = "8.2"
    cache_snapshot_name  = "another"
  }

  assert {
    condition     = aws_elasticache_replication_group.ledger[0].engine_version == "8.0" && aws_elasticache_replication_group.ledger[0].snapshot_name == null
    error_message = "an engine that AWS has upgraded is not changed back, which would replace the ledger"
  }
}

run "another_key_is_refused" {
  command         = plan
  expect_failures = [terraform_data.ledger]

  variables {
    kms_key_arn = "arn:aws:kms:us-east-1:123456789012:key/k"
  }
}

run "another_kind_is_refused" {
  command         = plan
  expect_failures = [terraform_data.ledger]

  variables {
    cache_serverless = true
  }
}

run "another_name_is_refused" {
  command         = plan
  expect_failures = [terraform_data.ledger]

  variables {
    resource_name = "other"
  }
}

run "unless_it_is_meant" {
  variables {
    cache_serverless = true
    cache_generation = 2
  }

  assert {
    condition     = aws_elasticache_serverless_cache.ledger[0].major_engine_version == "8"
    error_message = "replaced"
  }
}

run "a_serverless_engine_is_left_alone" {
  command = plan

  variables {
    cache_serverless     = true
    cache_generation     = 2
    cache_engine_version = "9.0"
  }

  assert {
    condition     = aws_elasticache_serverless_cache.ledger[0].major_engine_version == "8"
    error_message = "as well"
  }
}
