# The ledger: two Valkey nodes in two zones, or a serverless cache. Encrypted in transit and at rest, one ACL user.

locals {
  redis_username = "relay"
  redis_host     = var.cache_serverless ? join(",", [for e in aws_elasticache_serverless_cache.ledger[0].endpoint : "${e.address}:${e.port}"]) : "${aws_elasticache_replication_group.ledger[0].primary_endpoint_address}:6379"

  # lookup, not an index: a mocked stack has no outputs.
  redis_user_group = lookup(aws_cloudformation_stack.ledger_user.outputs, "UserGroupId", "")
  cache_major      = split(".", var.cache_engine_version)[0]

  # All that ElastiCache cannot change about a ledger and a variable can.
  ledger_made_of = join(" ", [local.ledger_id, coalesce(var.kms_key_arn, "aws"), var.cache_serverless ? "serverless" : "nodes"])
}

# The password. auth_token of a replication group and passwords of an aws_elasticache_user are ordinary arguments in
# provider 6.25: their values end up in the state. CloudFormation has no such state: it generates the secret, and
# resolves the reference to it when it makes the user. So Terraform never has the password, neither in a plan nor in
# a state file. It leaves the names to CloudFormation too: a deleted secret's name stays taken for a while.
# The access string leaves out what the relay has no business to run.
resource "aws_cloudformation_stack" "ledger_user" {
  region = var.aws_region
  name   = "${var.resource_name}-ledger-user"
  tags   = var.resource_tags

  template_body = jsonencode({
    AWSTemplateFormatVersion = "2010-09-09"
    Description              = "Password and ACL user of the Kong audit relay's ledger"
    Resources = {
      Password = {
        Type = "AWS::SecretsManager::Secret"
        Properties = merge(
          {
            Description = "Password of the relay's ledger"
            # Letters and digits only: every client and ACL takes them. 64 of them are 380 bits.
            GenerateSecretString = { PasswordLength = 64, ExcludePunctuation = true }
          },
          var.kms_key_arn == null ? {} : { KmsKeyId = var.kms_key_arn },
        )
      }
      User = {
        Type = "AWS::ElastiCache::User"
        Properties = {
          Engine       = "valkey"
          UserId       = "${local.ledger_user_id}-u"
          UserName     = local.redis_username
          AccessString = "on ~* +@all -flushall -flushdb"
          AuthenticationMode = {
            Type      = "password"
            Passwords = [{ "Fn::Sub" = "{{resolve:secretsmanager:$${Password}:SecretString}}" }]
          }
        }
      }
      Group = {
        Type = "AWS::ElastiCache::UserGroup"
        Properties = {
          Engine      = "valkey"
          UserGroupId = "${local.ledger_user_id}-g"
          UserIds     = [{ Ref = "User" }]
        }
      }
    }
    Outputs = {
      SecretArn   = { Value = { Ref = "Password" } }
      UserGroupId = { Value = { Ref = "Group" } }
    }
  })
}

resource "aws_elasticache_subnet_group" "ledger" {
  count = var.cache_serverless ? 0 : 1

  region      = var.aws_region
  name        = "${var.resource_name}-cache-subnet"
  description = "Ledger of the Kong audit relay"
  subnet_ids  = var.existing_subnet_ids
  tags        = var.resource_tags
}

# volatile-ttl: if memory runs out, the buckets go that would have expired first. That costs repeats of the oldest
# entries, no loss; dead letters and marks do not expire, so they stay. allkeys-* the relay refuses.
resource "aws_elasticache_parameter_group" "ledger" {
  count = var.cache_serverless ? 0 : 1

  region      = var.aws_region
  name        = "${local.ledger_id}-valkey${local.cache_major}"
  description = "Ledger of the Kong audit relay"
  family      = "valkey${local.cache_major}"
  tags        = var.resource_tags

  parameter {
    name  = "maxmemory-policy"
    value = "volatile-ttl"
  }

  lifecycle {
    create_before_destroy = true
  }
}

# What the ledger was created with. It stays as it is while the variables change, so that the condition below notices a
# change that would replace the ledger: prevent_destroy takes no variable, and would refuse a destroy as well.
resource "terraform_data" "ledger" {
  triggers_replace = [var.cache_generation]

  input = {
    created = formatdate("YYYYMMDDhhmmss", plantimestamp())
    made_of = local.ledger_made_of
  }

  lifecycle {
    ignore_changes = [input]

    postcondition {
      condition     = self.output.made_of == local.ledger_made_of
      error_message = "This change would destroy the ledger, with the record of what was delivered and with the dead letters: its name (resource_name), key (kms_key_arn) or kind (cache_serverless) is another one. Take it back, or raise cache_generation to do it all the same."
    }
  }
}

resource "aws_elasticache_replication_group" "ledger" {
  count = var.cache_serverless ? 0 : 1

  region               = var.aws_region
  replication_group_id = local.ledger_id
  description          = "Ledger of the Kong audit relay: what was delivered, marks, dead letters"
  engine               = "valkey"
  engine_version       = var.cache_engine_version
  node_type            = var.cache_node_type
  parameter_group_name = aws_elasticache_parameter_group.ledger[0].name
  port                 = 6379

  num_cache_clusters         = 2
  automatic_failover_enabled = true
  multi_az_enabled           = true

  transit_encryption_enabled = true
  transit_encryption_mode    = "required"
  at_rest_encryption_enabled = true
  kms_key_id                 = var.kms_key_arn
  user_group_ids             = [local.redis_user_group]

  subnet_group_name  = aws_elasticache_subnet_group.ledger[0].name
  security_group_ids = [aws_security_group.ledger.id]

  # The name of the final snapshot holds the ledger's age, because a name that is taken makes a destroy fail.
  snapshot_name              = var.cache_snapshot_name
  snapshot_retention_limit   = var.cache_snapshot_days
  final_snapshot_identifier  = "${local.ledger_id}-${terraform_data.ledger.output.created}"
  auto_minor_version_upgrade = true
  apply_immediately          = true
  tags                       = var.resource_tags

  lifecycle {
    # AWS upgrades the engine by itself. To Terraform that is a change to be taken back, which a new group alone can do.
    ignore_changes = [engine_version, snapshot_name]

    precondition {
      condition     = length(distinct(var.existing_subnet_ids)) >= 2
      error_message = "existing_subnet_ids needs two subnets in different Availability Zones: the ledger has a node in each."
    }
  }
}

# Always TLS, always cluster mode, never without a user.
resource "aws_elasticache_serverless_cache" "ledger" {
  count = var.cache_serverless ? 1 : 0

  region                   = var.aws_region
  name                     = local.ledger_id
  description              = "Ledger of the Kong audit relay: what was delivered, marks, dead letters"
  engine                   = "valkey"
  major_engine_version     = local.cache_major
  kms_key_id               = var.kms_key_arn
  user_group_id            = local.redis_user_group
  subnet_ids               = var.existing_subnet_ids
  security_group_ids       = [aws_security_group.ledger.id]
  snapshot_retention_limit = var.cache_snapshot_days
  tags                     = var.resource_tags

  cache_usage_limits {
    data_storage {
      maximum = var.cache_serverless_max_gb
      unit    = "GB"
    }
  }

  lifecycle {
    ignore_changes = [major_engine_version]

    precondition {
      condition     = coalesce(local.redis_db, "0") == "0"
      error_message = "cache_serverless runs in cluster mode, which has database 0 only: set lambda_env.REDIS_DB to 0."
    }
  }
}
